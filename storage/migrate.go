package storage

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

type migration struct {
	number int
	name   string
	text   string
}

func listMigrations() ([]migration, error) {
	files, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	var out []migration
	for _, f := range files {
		n, name, _ := strings.Cut(strings.TrimSuffix(f.Name(), ".sql"), "_")
		number, err := strconv.Atoi(n)
		if err != nil || number <= 0 || len(out) > 0 && out[len(out)-1].number >= number {
			return nil, fmt.Errorf("migration %s: want NNNN_name.sql with rising numbers", f.Name())
		}
		text, err := migrations.ReadFile("migrations/" + f.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, migration{number, name, string(text)})
	}
	return out, nil
}

// migrate brings the schema up to date, one transaction per migration. Several nodes that start together take turns. A schema
// that is newer than this program refuses to start.
func (db *DB) migrate(ctx context.Context) error {
	list, err := listMigrations()
	if err != nil {
		return err
	}
	c, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer db.drop(c)
	if err := db.inMigration(ctx, c, func() error {
		_, err := c.c.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)`)
		return err
	}); err != nil {
		return err
	}
	for _, m := range list {
		if err := db.inMigration(ctx, c, func() error { return db.apply(ctx, c, m, list[len(list)-1].number) }); err != nil {
			return fmt.Errorf("%04d_%s: %w", m.number, m.name, err)
		}
	}
	return nil
}

func (db *DB) inMigration(ctx context.Context, c *conn, fn func() error) error {
	if _, err := c.c.ExecContext(ctx, db.d.beginWrite); err != nil {
		return err
	}
	err := func() error {
		if db.d.lockMigrations != "" {
			if _, err := c.c.ExecContext(ctx, db.d.lockMigrations); err != nil {
				return err
			}
		}
		return fn()
	}()
	if err != nil {
		_, rerr := c.c.ExecContext(ctx, "ROLLBACK")
		return errors.Join(err, rerr)
	}
	_, err = c.c.ExecContext(ctx, "COMMIT")
	return err
}

func (db *DB) apply(ctx context.Context, c *conn, m migration, newest int) error {
	var have int
	if err := c.c.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&have); err != nil {
		return err
	}
	if have > newest {
		return fmt.Errorf("the database has schema %d, this program knows only up to %d; run the newer program", have, newest)
	}
	if have >= m.number {
		return nil
	}
	for _, s := range strings.Split(m.text, ";\n") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if _, err := c.c.ExecContext(ctx, db.d.ddl(strings.TrimSuffix(s, ";"))); err != nil {
			return fmt.Errorf("%.60q: %w", s, err)
		}
	}
	_, err := c.c.ExecContext(ctx, fmt.Sprintf(`INSERT INTO schema_version (version) VALUES (%d)`, m.number))
	return err
}
