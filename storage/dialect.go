package storage

import (
	"context"
	"database/sql"
	"regexp"
	"strings"
)

// dialect is what differs between the two databases. There are two values of it: sqliteDialect and postgresDialect.
type dialect struct {
	name string
	// open makes a pool of connections, of which none is used yet.
	open func(dsn string) (*sql.DB, error)
	// beginRead and beginWrite open a transaction on a connection.
	beginRead, beginWrite string
	// query rewrites the shared SQL text, ddl the text of migrations.
	query, ddl func(string) string
	// set turns a list into the one parameter that SET($n), INTSET($n) and BLOBSET($n) of a query take.
	set func(list any) any
	// setup prepares a new connection and refuses one with unsafe settings.
	setup func(ctx context.Context, c *sql.Conn) error
	// tidy begins a write-ahead log of more than so many pages anew, between two transactions; nil where the database does so itself.
	tidy func(ctx context.Context, c *sql.Conn, pages int) error
	// singleWriter is true where one connection does all writing (SQLite).
	singleWriter bool
	// isUnique, isRetry, isGone, isLate, isBroken classify errors of the driver: a violated unique key, a transaction that may be tried
	// again, a connection that is lost, a statement that waited too long, a file of which it is not known what the disk has.
	isUnique, isRetry, isGone, isLate, isBroken func(error) bool
	// isGuard: it comes of guardSQL (PostgreSQL).
	isGuard func(error) bool
	// isTaken tells a violated unique key that says that a position was given out already.
	isTaken func(error) bool
	// clock is the time of the database in ms, the same for all nodes. SQLite has one process and takes its own.
	clock string
	// nameSession gives a session a name, endSessions ends the sessions of a name that are in the middle of something; both are empty
	// where there is one process.
	nameSession, endSessions string
	// origin asks which server and which of its timelines answers; empty where there is one.
	origin string
	// foreignText asks for a column of text that is not compared byte by byte; empty where there is nothing to ask.
	foreignText string
	// lockMigrations is run in the migration transaction so that several starting nodes take turns.
	lockMigrations string
}

var (
	macroRE       = regexp.MustCompile(`\b(SET|INTSET|BLOBSET)\((\$\d+)\)`)
	placeholderRE = regexp.MustCompile(`\$(\d+)`)
)

// bulkSize is the row count for which a statement of n rows is prepared: a power of two. The rows are filled up with NULL rows that the
// statement leaves out, so that few statements serve any number of rows.
func bulkSize(n int) int {
	size := 1
	for size < n {
		size *= 2
	}
	return size
}

// insertion is rows for one table.
type insertion struct {
	// head is `INSERT INTO t (...)` or what else can stand before a SELECT, types the SQL types of its columns, tail what follows the rows.
	head  string
	types []string
	tail  string
	rows  [][]any
	// back takes the one number that the tail returns of a row; nil where it returns nothing.
	back func(n int64)
}

// write writes `head SELECT * FROM (VALUES ...) WHERE column1 IS NOT NULL tail` for size rows, whose parameters follow the first n, and
// returns how many parameters there are then.
func (i *insertion) write(b *strings.Builder, size, n int) int {
	b.WriteString(i.head)
	b.WriteString(" SELECT * FROM (VALUES ")
	for r := 0; r < size; r++ {
		if r > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for c := range i.types {
			if c > 0 {
				b.WriteString(", ")
			}
			n++
			if r == 0 {
				b.WriteString("CAST(")
			}
			b.WriteByte('$')
			b.WriteString(itoa(n))
			if r == 0 {
				b.WriteString(" AS ")
				b.WriteString(i.types[c])
				b.WriteByte(')')
			}
		}
		b.WriteByte(')')
	}
	b.WriteString(") AS v WHERE column1 IS NOT NULL ")
	b.WriteString(i.tail)
	return n
}

// size is how many rows are made room for, where others of the statement have up to size: so that there are few statements to prepare.
func (i *insertion) size(size int) int {
	if len(i.rows) == 1 {
		return 1
	}
	return size
}

// shape is what the text of up to five insertions depends on; the types and what an insertion returns go with its head and tail.
type shape struct {
	heads, tails [5]string
	single       [5]bool // there is one row
	size, many   int
	guarded      bool
}

// insertSQL is the statement for insertions of up to size rows each: one alone, or several together. It takes longer to write than to look up.
func (c *conn) insertSQL(list []insertion, size int, guarded bool) string {
	s := shape{size: size, many: len(list), guarded: guarded}
	for i := range list {
		s.heads[i], s.tails[i], s.single[i] = list[i].head, list[i].tail, len(list[i].rows) == 1
	}
	q, ok := c.texts[s]
	switch {
	case ok:
		return q
	case guarded:
		q = guardSQL(list, size)
	case len(list) == 1:
		var b strings.Builder
		list[0].write(&b, size, 0)
		q = b.String()
	default:
		q = togetherSQL(list, size)
	}
	c.texts[s] = q
	return q
}

// togetherSQL is one statement for insertions that do not depend on one another, of up to size rows each. It yields which insertion returned
// which number.
func togetherSQL(list []insertion, size int) string {
	var b strings.Builder
	writeAll(&b, list, size)
	b.WriteString(" SELECT CAST(-1 AS BIGINT), CAST(0 AS BIGINT)")
	for i := range list {
		if list[i].back != nil {
			b.WriteString(" UNION ALL SELECT " + itoa(i) + ", i" + itoa(i) + ".* FROM i" + itoa(i))
		}
	}
	return b.String()
}

// guardSQL is the same, but it fails, by dividing by zero, unless each insertion that returns something returns it of as many rows as the
// parameters that follow say. It yields nothing of interest.
func guardSQL(list []insertion, size int) string {
	var b strings.Builder
	n := writeAll(&b, list, size)
	b.WriteString(" SELECT 1 / CASE WHEN TRUE")
	for i := range list {
		if list[i].back != nil {
			n++
			b.WriteString(" AND (SELECT COUNT(*) FROM i" + itoa(i) + ") = CAST($" + itoa(n) + " AS BIGINT)")
		}
	}
	b.WriteString(" THEN 1 ELSE 0 END")
	return b.String()
}

func writeAll(b *strings.Builder, list []insertion, size int) (n int) {
	for i := range list {
		b.WriteString([]string{"WITH i", ", i"}[min(i, 1)] + itoa(i) + " AS (")
		n = list[i].write(b, list[i].size(size), n)
		b.WriteByte(')')
	}
	return n
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// nulMark begins the stored form of a text that holds NUL, which PostgreSQL cannot keep. The form is injective, so that no
// such text can pass for another one.
const nulMark = "\ufdd0nul:"

// dbText is the stored form of a string that came from outside.
func dbText(s string) string {
	if strings.IndexByte(s, 0) < 0 && !strings.HasPrefix(s, nulMark) {
		return s
	}
	var b strings.Builder
	b.WriteString(nulMark)
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case 0:
			b.WriteString(`\0`)
		case '\\':
			b.WriteString(`\\`)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// goText undoes dbText.
func goText(s string) string {
	if !strings.HasPrefix(s, nulMark) {
		return s
	}
	s = s[len(nulMark):]
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if i++; s[i] == '0' {
				b.WriteByte(0)
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
