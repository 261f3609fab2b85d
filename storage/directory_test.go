package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

func TestAliases(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		err := db.Update(context.Background(), func(tx *storage.Tx) error {
			for _, c := range []struct {
				alias matrix.RoomAlias
				room  matrix.RoomID
				want  bool
			}{{"#a:x", "!1:x", true}, {"#a:x", "!2:x", false}, {"#b:x", "!1:x", true}, {"#A:x", "!2:x", true}, {"#b:y", "!1:x", true}} {
				if ok, err := tx.PutAlias(storage.Alias{Alias: c.alias, RoomID: c.room, Creator: "@u:x"}); err != nil || ok != c.want {
					t.Errorf("PutAlias(%s) = %v, %v", c.alias, ok, err)
				}
			}
			if a, err := tx.LoadAlias("#a:x"); err != nil || a.RoomID != "!1:x" || a.Creator != "@u:x" {
				t.Errorf("LoadAlias = %+v, %v", a, err)
			}
			if _, err := tx.LoadAlias("#c:x"); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("LoadAlias of none: %v", err)
			}
			if n, err := tx.MoveAliases("!1:x", "!3:x", "x"); n != 2 || err != nil {
				t.Errorf("MoveAliases = %d, %v", n, err)
			}
			list, err := tx.LoadAliases("!3:x", "x")
			if err != nil || len(list) != 2 || list[0].Alias != "#a:x" || list[1].Alias != "#b:x" {
				t.Errorf("LoadAliases = %+v, %v", list, err)
			}
			for _, want := range []bool{true, false} {
				if ok, err := tx.DeleteAlias("#a:x", "!3:x"); ok != want || err != nil {
					t.Errorf("DeleteAlias = %v, %v", ok, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestPublishedRooms(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		err := db.Update(context.Background(), func(tx *storage.Tx) error {
			for _, want := range []bool{true, false} {
				if ok, err := tx.Publish("x", "!1:x", "@u:x"); ok != want || err != nil {
					t.Errorf("Publish = %v, %v", ok, err)
				}
			}
			for tenant, want := range map[matrix.ServerName]bool{"x": true, "y": false} {
				if ok, err := tx.IsPublished(tenant, "!1:x"); ok != want || err != nil {
					t.Errorf("IsPublished(%s) = %v, %v", tenant, ok, err)
				}
			}
			if list, err := tx.LoadPublishedRooms("x", nil, storage.Forward, 10); err != nil || len(list) != 0 {
				t.Errorf("a room that is not there is listed: %v, %v", list, err)
			}
			for _, want := range []bool{true, false} {
				if ok, err := tx.Unpublish("x", "!1:x"); ok != want || err != nil {
					t.Errorf("Unpublish = %v, %v", ok, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestSearchDirectory(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var list []storage.DirectoryUser
		for i, name := range []string{"anna", "hannah", "joanna", "an%a", `an\a`, "an_a", "zoe"} {
			list = append(list, storage.DirectoryUser{UserID: matrix.UserID("@" + name + ":x"), Tenant: "x", Class: []string{"c1", "c2"}[i%2], Local: name, Name: "the name of " + name})
		}
		search := func(s storage.DirectorySearch) string {
			var out []string
			err := db.Read(context.Background(), func(tx *storage.Tx) error {
				hits, err := tx.SearchDirectory(s)
				for _, h := range hits {
					out = append(out, fmt.Sprint(h.UserID.Localpart(), h.Rank))
				}
				return err
			})
			if err != nil {
				t.Errorf("search for %+v: %v", s, err)
			}
			return strings.Join(out, " ")
		}
		err := db.Update(context.Background(), func(tx *storage.Tx) error {
			if err := tx.PutDirectoryUsers(list); err != nil {
				return err
			}
			return tx.PutDirectoryUsers(list[:1])
		})
		if err != nil {
			t.Fatal(err)
		}
		both := []string{"c1", "c2"}
		for _, c := range []struct {
			s    storage.DirectorySearch
			want string
		}{
			{storage.DirectorySearch{Classes: both, Term: "anna", Limit: 9}, "anna0 hannah2 joanna2"},
			{storage.DirectorySearch{Classes: both, Term: "anna", Limit: 1}, "anna0"},
			{storage.DirectorySearch{Classes: both, Term: "anna", Limit: 9, After: &storage.DirectoryHit{UserID: "@hannah:x", Rank: 2}}, "joanna2"},
			{storage.DirectorySearch{Classes: both[:1], Term: "anna", Limit: 9}, "anna0 joanna2"},
			{storage.DirectorySearch{Classes: nil, Term: "anna", Limit: 9}, ""},
			{storage.DirectorySearch{Classes: both, Term: "an%", Limit: 9}, "an%a1"},
			{storage.DirectorySearch{Classes: both, Term: "an_", Limit: 9}, "an_a1"},
			{storage.DirectorySearch{Classes: both, Term: `n\`, Limit: 9}, `an\a2`},
			{storage.DirectorySearch{Classes: both, Term: "the name of z", Limit: 9}, "zoe1"},
			{storage.DirectorySearch{Classes: both, Term: "h", Local: "h", Server: "x", Limit: 9}, "hannah1"},
			{storage.DirectorySearch{Classes: both, Term: "h", Local: "h", Server: "y", Limit: 9}, ""},
			{storage.DirectorySearch{Classes: both, Term: "a\x00", Limit: 9}, ""},
		} {
			if got := search(c.s); got != c.want {
				t.Errorf("search for %+v finds %q, want %q", c.s, got, c.want)
			}
		}
		err = db.Update(context.Background(), func(tx *storage.Tx) error { return tx.DeleteDirectoryUsers([]matrix.UserID{"@anna:x", "@none:x"}) })
		if err != nil {
			t.Fatal(err)
		}
		if got := search(storage.DirectorySearch{Classes: both, Term: "anna", Limit: 9}); got != "hannah2 joanna2" {
			t.Errorf("after a deletion: %q", got)
		}
	})
}
