package account

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/storage"
)

const tagged1 = matrix.RoomID("!tagged:acme.example")

func (k *kit) tags(by Caller) string {
	k.t.Helper()
	err := k.DB.View(k.t.Context(), func(tx *storage.Tx) error {
		d, err := tx.LoadAccountDatum(by.UserID, tagged1, typeTag)
		if err == nil && !strings.Contains(string(d.Content), `"tags":{`) {
			k.t.Errorf("stored %s", d.Content)
		}
		if err == storage.ErrNotFound {
			err = nil
		}
		return err
	})
	must(k.t, err)
	list, err := k.Tags(k.t.Context(), by, by.UserID, tagged1)
	must(k.t, err)
	out := make([]string, 0, len(list))
	for _, name := range []string{"m.favourite", "u.a", "u.b", "u.é/x"} {
		if v, ok := list[name]; ok {
			out = append(out, name+string(v))
		}
	}
	if len(out) != len(list) {
		k.t.Errorf("tags %v", list)
	}
	return strings.Join(out, " ")
}

func TestTags(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := t.Context()
		k.add(NewUser{ID: anna})
		k.add(NewUser{ID: bob})
		a, _ := k.login(anna, nil)
		b, _ := k.login(bob, nil)
		put := func(tag, content string) error {
			return k.PutTag(ctx, a, anna, tagged1, tag, jsontext.Value(content))
		}
		if got := k.tags(a); got != "" {
			t.Errorf("tags %s before any", got)
		}
		must(t, put("m.favourite", ` { "order" : 0.5 } `))
		must(t, put("u.é/x", `{}`))
		if got, want := k.tags(a), `m.favourite{"order":0.5} u.é/x{}`; got != want {
			t.Errorf("tags %s, want %s", got, want)
		}
		must(t, put("m.favourite", `{"order":1}`))
		must(t, k.DeleteTag(ctx, a, anna, tagged1, "u.é/x"))
		must(t, k.DeleteTag(ctx, a, anna, tagged1, "u.never"))
		if got, want := k.tags(a), `m.favourite{"order":1}`; got != want {
			t.Errorf("tags %s, want %s", got, want)
		}
		if got := k.tags(b); got != "" {
			t.Errorf("bob sees %s", got)
		}
		k.heard()
		must(t, put("m.favourite", `{"order":1}`))
		k.mu.Lock()
		if len(k.notices) != 0 {
			t.Errorf("a tag that was there was told: %v", k.notices)
		}
		k.mu.Unlock()
		// A client may have written the datum by itself.
		must(t, k.PutAccountData(ctx, a, anna, tagged1, typeTag, jsontext.Value(`{"tags":7}`)))
		must(t, put("u.a", `{}`))
		must(t, k.PutAccountData(ctx, a, anna, tagged1, typeTag, jsontext.Value(`{"tags":{"u.b":{}},"x":[1]}`)))
		must(t, put("u.a", `{}`))
		if got, want := k.tags(a), `u.a{} u.b{}`; got != want {
			t.Errorf("tags %s, want %s", got, want)
		}
		d, err := k.GetAccountData(ctx, a, anna, tagged1, typeTag)
		must(t, err)
		if want := `{"tags":{"u.a":{},"u.b":{}},"x":[1]}`; string(d) != want {
			t.Errorf("stored %s, want %s", d, want)
		}
	})
}

func TestTags_AtOnce(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		k.add(NewUser{ID: anna})
		a, _ := k.login(anna, nil)
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if err := k.PutTag(t.Context(), a, anna, tagged1, fmt.Sprintf("u.%d", i), jsontext.Value(`{}`)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		list, err := k.Tags(t.Context(), a, anna, tagged1)
		if err != nil || len(list) != 12 {
			t.Errorf("%d tags, %v", len(list), err)
		}
	})
}

func TestC173_J34_TagsOfOthersAndTooMuch(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := t.Context()
		k.add(NewUser{ID: anna})
		k.add(NewUser{ID: bob})
		a, _ := k.login(anna, nil)
		_, err := k.Tags(ctx, a, bob, tagged1)
		wants(t, "tags of another user", err, 403, matrix.CodeForbidden)
		put := func(user matrix.UserID, tag, content string) error {
			return k.PutTag(ctx, a, user, tagged1, tag, jsontext.Value(content))
		}
		wants(t, "tag for another user", put(bob, "u.a", `{}`), 403, matrix.CodeForbidden)
		wants(t, "untag for another user", k.DeleteTag(ctx, a, bob, tagged1, "u.a"), 403, matrix.CodeForbidden)
		wants(t, "empty name", put(anna, "", `{}`), 400, matrix.CodeInvalidParam)
		wants(t, "long name", put(anna, strings.Repeat("a", 256), `{}`), 400, matrix.CodeInvalidParam)
		wants(t, "name that is no text", put(anna, "\xff", `{}`), 400, matrix.CodeInvalidParam)
		wants(t, "no object", put(anna, "u.a", `[]`), 400, matrix.CodeBadJSON)
		big := `{"x":"` + strings.Repeat("a", maxAccountDatum/2) + `"}`
		must(t, put(anna, "u.a", big))
		wants(t, "too much", put(anna, "u.b", big), 413, matrix.CodeTooLarge)
		if got := k.tags(a); got != "u.a"+big {
			t.Errorf("tags %.60s", got)
		}
	})
}
