package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// beside is a database that is open twice: by the server, and by somebody who can get in its way.
func beside(t *testing.T) (*storage.DB, *sql.DB) {
	t.Helper()
	url := storagetest.URL(t, "postgres")
	return storagetest.Open(t, storage.Options{URL: url}), storagetest.Raw(t, url)
}

// pair is beside with two nodes.
func pair(t *testing.T) (one, two *storage.DB, raw *sql.DB) {
	t.Helper()
	url := storagetest.URL(t, "postgres")
	one, two = storagetest.Open(t, storage.Options{URL: url}), storagetest.Open(t, storage.Options{URL: url})
	return one, two, storagetest.Raw(t, url)
}

// hold runs statements in a transaction that is ended by the function it returns.
func hold(t *testing.T, raw *sql.DB, list ...string) (release func()) {
	t.Helper()
	tx, err := raw.Begin()
	must(t, err)
	for _, q := range list {
		_, err := tx.Exec(q)
		must(t, err)
	}
	release = sync.OnceFunc(func() { _ = tx.Commit() })
	t.Cleanup(release)
	return release
}

const takeTurn = `SELECT pg_advisory_xact_lock(5162342481)`

// impatient makes the writer wait for locks two seconds at most.
func impatient(t *testing.T, db *storage.DB) {
	t.Helper()
	must(t, db.UpdateShared(context.Background(), func(tx *storage.Tx) error { return storage.Exec(tx, "SET lock_timeout = 2000") }))
}

// blocked waits until somebody waits for a lock.
func blocked(t *testing.T, raw *sql.DB) {
	t.Helper()
	for began, n := time.Now(), 0; n == 0; {
		must(t, raw.QueryRow(`SELECT COUNT(*) FROM pg_stat_activity, pg_sleep(0.01) WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
		if time.Since(began) > time.Minute {
			t.Fatal("nobody waits for a lock")
		}
	}
}

// Where the turn does not come all who wait are told together, and not one after the other.
func TestTurn_NotWaitedForInAQueue(t *testing.T) {
	t.Parallel()
	db, raw := beside(t)
	impatient(t, db)
	release := hold(t, raw, takeTurn)
	var all sync.WaitGroup
	began := time.Now()
	for i := range 24 {
		c := newChain(fmt.Sprintf("!%d:acme.example", i))
		a := c.next(t, "m.test", nil, `{}`)
		for range 255 { // a batch of its own
			e := c.next(t, "m.test", nil, `{}`)
			a.Events, a.Head = append(a.Events, e.Events...), e.Head
		}
		a.Patient = i%2 == 0
		all.Go(func() {
			if err := db.Append(context.Background(), a); !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("append %d: %v, want ErrUnavailable", i, err)
			}
		})
	}
	all.Wait()
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("the last of them was told after %v", d)
	}
	release()
	must(t, db.Append(context.Background(), newChain("!after:acme.example").next(t, "m.test", nil, `{}`)))
}

// A batch that waited for a lock in vain is not halved, to wait as long with every part.
func TestWriter_WaitsOnceForALock(t *testing.T) {
	t.Parallel()
	db, raw := beside(t)
	impatient(t, db)
	turn, row := hold(t, raw, takeTurn), hold(t, raw, `SELECT pos FROM log_position FOR UPDATE`)
	var waits []func() error
	for i := range 16 {
		wait, err := db.Pending(context.Background(), newChain(fmt.Sprintf("!%d:acme.example", i)).next(t, "m.test", nil, `{}`))
		must(t, err)
		waits = append(waits, wait)
	}
	began := time.Now()
	turn()
	for i, wait := range waits {
		if err := wait(); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("append %d: %v, want ErrUnavailable", i, err)
		}
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("the last of them was told after %v", d)
	}
	row()
	must(t, db.Append(context.Background(), newChain("!after:acme.example").next(t, "m.test", nil, `{}`)))
}

// A node of a version that knows only the counter row writes all the time. Neither is kept from writing, and no position is given out twice.
func TestTurn_BesideAnOlderVersion(t *testing.T) {
	t.Parallel()
	db, raw := beside(t)
	ctx := context.Background()
	must(t, db.Append(ctx, newChain("!a:acme.example").next(t, "m.test", nil, `{}`)))
	stop := make(chan struct{})
	var old sync.WaitGroup
	defer old.Wait()
	defer sync.OnceFunc(func() { close(stop) })()
	old.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			tx, err := raw.Begin()
			if err != nil {
				t.Error(err)
				return
			}
			var pos int64
			err = tx.QueryRow(`UPDATE log_position SET pos = pos + 1 WHERE id = 1 RETURNING pos`).Scan(&pos)
			q := `INSERT INTO events (pos, event_id, room_num, type, sender, depth, origin_server_ts, received_ts, flags, json)
				SELECT CAST($1 AS BIGINT), event_id || CAST($1 AS BIGINT), room_num, type, sender, depth, 1, 1, 0, json FROM events WHERE pos = 1`
			if i%4 == 3 {
				q = `INSERT INTO notices (pos, name, ref, created_ts) VALUES ($1, 'test', '', 1)`
			}
			_, ierr := tx.Exec(q, pos)
			_, serr := tx.Exec(`SELECT pg_sleep(0.005)`)
			if err := errors.Join(err, ierr, serr, tx.Commit()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 40 {
		var waits []func() error
		for k := range 3 {
			wait, err := db.Pending(ctx, newChain(fmt.Sprintf("!%d-%d:acme.example", i, k)).next(t, "m.test", nil, `{}`))
			must(t, err)
			waits = append(waits, wait)
		}
		for _, wait := range waits {
			if err := wait(); err != nil {
				t.Fatalf("append %d: %v", i, err)
			}
		}
	}
	var entries, pos int64
	must(t, raw.QueryRow(`SELECT (SELECT COUNT(*) FROM events) + (SELECT COUNT(*) FROM notices), pos FROM log_position`).Scan(&entries, &pos))
	if entries != pos {
		t.Errorf("%d entries, and the log is at %d", entries, pos)
	}
}

// Such a node has taken numbers for history only, which the position does not show.
func TestTurn_BesideHistoryOfAnOlderVersion(t *testing.T) {
	t.Parallel()
	db, raw := beside(t)
	release := hold(t, raw, `UPDATE log_position SET backfill = backfill + 5 WHERE id = 1`)
	wait, err := db.Pending(context.Background(), newChain("!a:acme.example").next(t, "m.test", nil, `{}`))
	must(t, err)
	blocked(t, raw)
	release()
	must(t, wait())
	var pos, backfill int64
	must(t, raw.QueryRow(`SELECT pos, backfill FROM log_position`).Scan(&pos, &backfill))
	if pos != 1 || backfill != 5 {
		t.Errorf("the log is at %d, and history at %d; want 1 and 5", pos, backfill)
	}
}

// What a node remembers of a room may be out of date. It is not held against what was built on the newest head.
func TestTurn_NewestHeadIsNeverRefused(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	one, two := storagetest.Open(t, storage.Options{URL: url}), storagetest.Open(t, storage.Options{URL: url})
	ctx := context.Background()
	room, other := newChain("!a:acme.example").next(t, "m.test", nil, `{}`), newChain("!b:acme.example").next(t, "m.test", nil, `{}`)
	must(t, one.Append(ctx, room))
	must(t, two.Append(ctx, other))
	n := 0
	write := func(t *testing.T, db *storage.DB, last *storage.Append, change func(*storage.Append)) *storage.Append {
		t.Helper()
		n++
		a := onto(t, last.Room, "anna", n)
		if change != nil {
			change(a)
		}
		must(t, db.Append(ctx, a))
		return a
	}
	fixed := func(a *storage.Append) { a.Rebase = nil }
	room = write(t, one, room, nil)
	other = write(t, two, other, nil) // two hears at its turn that the room has moved
	t.Run("more events than a turn tells of", func(t *testing.T) {
		c := newChain("!many:acme.example")
		many := c.next(t, "m.test", nil, `{}`)
		for range 1100 {
			b := c.next(t, "m.test", nil, `{}`)
			many.Events, many.Head = append(many.Events, b.Events...), b.Head
		}
		must(t, one.Append(ctx, many))
		room = write(t, one, room, nil)
		other = write(t, two, other, nil)
		room = write(t, two, room, fixed)
	})
	t.Run("history only", func(t *testing.T) {
		room = write(t, one, room, nil)
		other = write(t, two, other, nil)
		room = write(t, one, room, func(a *storage.Append) { a.Events[0].Flags |= storage.Backfilled })
		room = write(t, two, room, fixed)
	})
}

// Wherever the connection is lost, the next one does what the last one did, and nothing is half done.
func TestTurn_LostConnections(t *testing.T) {
	t.Parallel()
	db, raw := beside(t)
	ctx := context.Background()
	room := newChain("!a:acme.example").next(t, "m.test", nil, `{}`)
	must(t, db.Append(ctx, room))
	kill := func(t *testing.T, which string) {
		t.Helper()
		var n int
		must(t, raw.QueryRow(`SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND `+which).Scan(&n))
		if n == 0 {
			t.Fatal("there is nobody to disconnect")
		}
	}
	t.Run("between two turns", func(t *testing.T) {
		kill(t, `state = 'idle'`)
		room = onto(t, room.Room, "anna", 1)
		must(t, db.Append(ctx, room))
	})
	t.Run("waiting for the turn", func(t *testing.T) {
		release := hold(t, raw, takeTurn)
		room = onto(t, room.Room, "anna", 2)
		wait, err := db.Pending(ctx, room)
		must(t, err)
		blocked(t, raw)
		kill(t, `wait_event_type = 'Lock'`)
		release()
		must(t, wait())
	})
	t.Run("in the middle", func(t *testing.T) {
		lost := onto(t, room.Room, "anna", 3)
		lost.Also = func(tx *storage.Tx) error { return storage.Exec(tx, `SELECT pg_terminate_backend(pg_backend_pid())`) }
		if err := db.Append(ctx, lost); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("append: %v, want ErrUnavailable", err)
		}
		room = onto(t, room.Room, "anna", 4)
		room.Rebase = nil
		must(t, db.Append(ctx, room))
	})
	t.Run("waiting for a table", func(t *testing.T) {
		impatient(t, db)
		release := hold(t, raw, `LOCK TABLE rooms IN ACCESS EXCLUSIVE MODE`) // the turn has begun when it fails
		if err := db.Append(ctx, onto(t, room.Room, "anna", 5)); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("append: %v, want ErrUnavailable", err)
		}
		release()
		must(t, db.Append(ctx, onto(t, room.Room, "anna", 6)))
	})
	var entries, pos int64
	must(t, raw.QueryRow(`SELECT (SELECT COUNT(*) FROM events), pos FROM log_position`).Scan(&entries, &pos))
	if entries != pos || pos != 5 {
		t.Errorf("%d events, and the log is at %d; want 5", entries, pos)
	}
}

// The statements that are asked many times a second go by keys, whatever PostgreSQL knows of the tables.
func TestPlans_TurnAndNewsGoByKeys(t *testing.T) {
	t.Parallel()
	_, raw := beside(t)
	c, err := raw.Conn(context.Background())
	must(t, err)
	defer func() { _ = c.Close() }()
	exec := func(q string) {
		t.Helper()
		_, err := c.ExecContext(context.Background(), q)
		must(t, err)
	}
	scans := regexp.MustCompile(`Seq Scan on (events|rooms)`)
	check := func(when, mode, what string) {
		t.Helper()
		rows, err := c.QueryContext(context.Background(), "EXPLAIN EXECUTE "+what, pgx.QueryExecModeSimpleProtocol)
		must(t, err)
		var plan []string
		for rows.Next() {
			var line string
			must(t, rows.Scan(&line))
			plan = append(plan, line)
		}
		must(t, rows.Close())
		text := strings.Join(plan, "\n")
		if scans.MatchString(text) || !strings.Contains(text, "events_pkey") || !strings.Contains(text, "rooms_pkey") {
			t.Errorf("%s, %s: %s is\n%s", when, mode, what, text)
		}
	}
	both := func(when string, pos int) {
		exec(`DEALLOCATE ALL`)
		exec(storage.TurnSQL())
		exec(`PREPARE news (BIGINT, BIGINT, BIGINT[]) AS ` + storage.NewsSQL())
		exec(`PREPARE log (BIGINT, BIGINT) AS ` + storage.LogEventsSQL)
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			exec(`SET plan_cache_mode = ` + mode)
			exec(`SET enable_seqscan = off`)
			check(when, mode, fmt.Sprintf(`hansa_turn(%d)`, pos))
			exec(`RESET enable_seqscan`)
			check(when, mode, fmt.Sprintf(`news(%d, %d, '{1}')`, pos, pos+512))
			check(when, mode, fmt.Sprintf(`log(%d, %d)`, pos, pos+512))
		}
	}
	both("fresh", 0)
	exec(`ALTER TABLE events SET (autovacuum_enabled = false)`)
	exec(`ALTER TABLE rooms SET (autovacuum_enabled = false)`)
	exec(`INSERT INTO rooms SELECT g, '!' || g, '11', 'x', '$' || g, '[]', 1, '', g, g FROM generate_series(1, 20000) g`)
	exec(`INSERT INTO events (pos, event_id, room_num, type, sender, depth, origin_server_ts, received_ts, flags, json)
		SELECT g, '$' || g, 1 + g % 20000, 'm.room.message', '@a:x', 1, 1, 1, 0, '' FROM generate_series(1, 200000) g`)
	both("never analysed", 199000)
	exec(`ANALYZE`)
	both("analysed", 199000)
}

// Whoever holds the turn plans nothing twice and scans nothing that has an index; those who only read do as they need.
func TestTurn_Settings(t *testing.T) {
	t.Parallel()
	db, _ := beside(t)
	for range 2 {
		must(t, db.UpdateShared(context.Background(), func(tx *storage.Tx) error {
			for setting, want := range map[string]string{"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan"} {
				if got := storage.SettingOf(tx, setting); got != want {
					t.Errorf("with the turn %s is %s, want %s", setting, got, want)
				}
			}
			return nil
		}))
		must(t, db.View(context.Background(), func(tx *storage.Tx) error {
			for setting, want := range map[string]string{"enable_seqscan": "on", "plan_cache_mode": "auto"} {
				if got := storage.SettingOf(tx, setting); got != want {
					t.Errorf("without it %s is %s, want %s", setting, got, want)
				}
			}
			return nil
		}))
	}
}

// Of the appends to a room that are one batch the newest visible event counts, wherever it stands among them.
func TestAppend_LastPositionOfABatch(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		begun, release, updated := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			updated <- db.UpdateShared(ctx, func(*storage.Tx) error { close(begun); <-release; return nil })
		}()
		<-begun
		c := newChain("!a:acme.example")
		seen := c.next(t, "m.test", nil, `{}`)
		hidden := c.next(t, "m.test", nil, `{}`)
		hidden.Events[0].Flags |= storage.SoftFailed
		for _, a := range []*storage.Append{seen, hidden} {
			wait, err := db.Pending(ctx, a)
			must(t, err)
			defer func() { must(t, wait()) }()
		}
		close(release)
		must(t, <-updated)
		must(t, db.Append(ctx, newChain("!b:acme.example").next(t, "m.test", nil, `{}`)))
		must(t, db.Read(ctx, func(tx *storage.Tx) error {
			room, err := tx.LoadRoom("!a:acme.example")
			if err == nil && room.Head.LastPos != seen.Stored[0].Pos {
				t.Errorf("the newest visible event is said to be at %d, and is at %d", room.Head.LastPos, seen.Stored[0].Pos)
			}
			return err
		}))
	})
}

// Of the changes to one key of the state that are one batch the last one counts.
func TestAppend_UnsetInABatch(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		first := newChain("!a:acme.example")
		create := first.next(t, "m.test", nil, `{}`)
		must(t, db.Append(ctx, create))
		begun, release, updated := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			updated <- db.UpdateShared(ctx, func(*storage.Tx) error { close(begun); <-release; return nil })
		}()
		<-begun
		first.room = create.Room
		set := first.next(t, "m.room.member", ptr("@anna:acme.example"), `{"membership":"join"}`)
		unset := first.next(t, "m.test", nil, `{}`)
		set.State[0].Key = event.StateKey{Type: "m.room.member", Key: "@anna:acme.example"}
		unset.State = append(unset.State, set.State...)
		unset.State[0].ID = ""
		var waits []func() error
		for _, a := range []*storage.Append{set, unset} {
			wait, err := db.Pending(ctx, a)
			must(t, err)
			waits = append(waits, wait)
		}
		close(release)
		must(t, errors.Join(<-updated, waits[0](), waits[1]()))
		must(t, db.Read(ctx, func(tx *storage.Tx) error {
			rows, err := tx.LoadStateRows("!a:acme.example")
			members, merr := tx.LoadMembers("!a:acme.example")
			if len(rows)+len(members) > 0 {
				t.Errorf("what was unset is there: %v, %v", rows, members)
			}
			return errors.Join(err, merr)
		}))
	})
}

// Who comes when the writer has ended does not wait for ever.
func TestClose_NobodyWaitsForEver(t *testing.T) {
	t.Parallel()
	db, err := storage.Open(context.Background(), storage.Options{URL: storagetest.URL(t, "sqlite"), Log: storagetest.Quiet()})
	must(t, err)
	must(t, db.Close())
	if err := storage.SubmitLate(db); !errors.Is(err, storage.ErrUnavailable) {
		t.Errorf("update: %v, want ErrUnavailable", err)
	}
}

// Preference ends also where a turn that had begun before takes along what tells so, and the node writes nothing more.
func TestPrefer_EndsInTheMiddleOfATurn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two, raw := pair(t)
	impatient(t, two)
	end, err := one.Prefer(ctx)
	must(t, err)
	release := hold(t, raw, takeTurn)
	done := make(chan error, 1)
	go func() { done <- one.Append(ctx, newChain("!here:acme.example").next(t, "m.test", nil, `{}`)) }()
	blocked(t, raw)
	end()
	release()
	must(t, <-done)
	must(t, two.Append(ctx, newChain("!there:acme.example").next(t, "m.test", nil, `{}`)))
}

// A node that goes first keeps the others from writing, and not itself, until it is done; or else for a short time.
func TestPrefer(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	one, two, raw := pair(t)
	for _, ends := range []bool{true, false} {
		name := fmt.Sprint(ends)
		here, there := newChain("!here"+name+":acme.example"), newChain("!there"+name+":acme.example")
		end, err := one.Prefer(ctx)
		must(t, err)
		again, err := one.Prefer(ctx)
		must(t, err)
		first := there.next(t, "m.test", nil, `{}`)
		done := make(chan error, 1)
		go func() { done <- two.Append(ctx, first) }()
		blocked(t, raw)
		var last *storage.Append
		for range 20 {
			last = here.next(t, "m.test", nil, `{}`)
			must(t, one.Append(ctx, last))
			here.room = last.Room
			if again(); !ends {
				break
			}
		}
		if ends {
			end()
		}
		must(t, <-done)
		if a, b := last.Stored[0].Pos, first.Stored[0].Pos; a > b {
			t.Errorf("ended %t: the other node wrote at %d, before this one at %d", ends, b, a)
		}
		must(t, one.Append(ctx, newChain("!later"+name+":acme.example").next(t, "m.test", nil, `{}`)))
	}
}
