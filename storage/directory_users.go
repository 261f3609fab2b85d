package storage

import (
	"database/sql"
	"strings"

	"hansa/matrix"
)

// DirectoryUser is an entry of the user directory: what a search looks at.
type DirectoryUser struct {
	UserID matrix.UserID
	Tenant matrix.ServerName
	// Class is the key of the user's audience class.
	Class string
	// Local and Name are localpart and display name in small letters.
	Local, Name string
}

// PutDirectoryUsers stores entries.
func (tx *Tx) PutDirectoryUsers(list []DirectoryUser) error {
	rows := make([][]any, len(list))
	for i, u := range list {
		rows[i] = []any{dbText(string(u.UserID)), string(u.Tenant), dbText(u.Class), dbText(u.Local), dbText(u.Name)}
	}
	return tx.bulk(`INSERT INTO user_directory (user_id, tenant, class, local_text, name_text)`, []string{"TEXT", "TEXT", "TEXT", "TEXT", "TEXT"},
		`ON CONFLICT (user_id) DO UPDATE SET class = excluded.class, local_text = excluded.local_text, name_text = excluded.name_text`, rows, nil)
}

// DeleteDirectoryUsers removes entries.
func (tx *Tx) DeleteDirectoryUsers(users []matrix.UserID) error {
	_, err := tx.exec(`DELETE FROM user_directory WHERE user_id SET($1)`, setOf(tx, users))
	return err
}

func (tx *Tx) directoryUsers(q string, args ...any) ([]DirectoryUser, error) {
	var out []DirectoryUser
	err := tx.query(func(r *sql.Rows) error {
		var user, tenant, class, local, name string
		if err := r.Scan(&user, &tenant, &class, &local, &name); err != nil {
			return err
		}
		out = append(out, DirectoryUser{matrix.UserID(goText(user)), matrix.ServerName(tenant), goText(class), goText(local), goText(name)})
		return nil
	}, q, args...)
	return out, err
}

// LoadDirectoryUsers returns those of the users who have an entry.
func (tx *Tx) LoadDirectoryUsers(users []matrix.UserID) ([]DirectoryUser, error) {
	return tx.directoryUsers(`SELECT user_id, tenant, class, local_text, name_text FROM user_directory WHERE user_id SET($1)`, setOf(tx, users))
}

// LoadDirectoryClasses returns the keys of all audience classes that somebody in the directory belongs to.
func (tx *Tx) LoadDirectoryClasses() ([]string, error) {
	var out []string
	err := tx.query(func(r *sql.Rows) error {
		var class string
		err := r.Scan(&class)
		out = append(out, goText(class))
		return err
	}, `SELECT DISTINCT class FROM user_directory`)
	return out, err
}

// DirectorySearch is what is searched for in the user directory.
type DirectorySearch struct {
	// Classes are the audience classes to search in.
	Classes []string
	// Term must be part of localpart or display name; it is in small letters.
	Term string
	// Local must be the beginning of the localpart, Server the server name; empty for any.
	Local  string
	Server matrix.ServerName
	// After is the last entry of the page before.
	After *DirectoryHit
	Limit int
}

// DirectoryHit is an entry that was found.
type DirectoryHit struct {
	UserID matrix.UserID
	// Rank is 0 for the very localpart, 1 for what begins with the term, 2 for the others.
	Rank int64
}

const searchDirectorySQL = `SELECT q.user_id, q.place FROM (SELECT d.user_id AS user_id, CASE WHEN d.local_text = $2 THEN 0
		WHEN d.local_text LIKE $3 ESCAPE '\' OR d.name_text LIKE $3 ESCAPE '\' THEN 1 ELSE 2 END AS place
	FROM user_directory d WHERE d.class SET($1) AND (d.local_text LIKE $4 ESCAPE '\' OR d.name_text LIKE $4 ESCAPE '\')
		AND d.local_text LIKE $5 ESCAPE '\' AND (d.tenant = $6 OR CAST($6 AS TEXT) = '')) q
	WHERE q.place > $7 OR q.place = $7 AND q.user_id > $8 ORDER BY q.place, q.user_id LIMIT $9`

// SearchDirectory returns a page of what is found, the best first. Nobody outside the classes is looked at.
func (tx *Tx) SearchDirectory(s DirectorySearch) ([]DirectoryHit, error) {
	var out []DirectoryHit
	term, place, after := likeText(s.Term), int64(-1), ""
	if s.After != nil {
		place, after = s.After.Rank, dbText(string(s.After.UserID))
	}
	err := tx.query(func(r *sql.Rows) error {
		var user string
		var h DirectoryHit
		err := r.Scan(&user, &h.Rank)
		h.UserID = matrix.UserID(goText(user))
		out = append(out, h)
		return err
	}, searchDirectorySQL, setOf(tx, s.Classes), dbText(s.Term), term+"%", "%"+term+"%", likeText(s.Local)+"%", string(s.Server), place, after, s.Limit)
	return out, err
}

// likeText makes a text stand for itself in a LIKE pattern.
func likeText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(dbText(s))
}
