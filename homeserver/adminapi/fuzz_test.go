package adminapi

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/policy"
)

// Whatever a body holds, it is an input for the policy or an answer that the specification knows.
func FuzzQuestion(f *testing.F) {
	for _, seed := range []string{`{"point":"room.invite","subject":"@a:b.c","target":"@d:e.f","with":["@g:h.i"]}`, `{"decision_id":"x"}`, `{"point":"event.send","subject":"@a:b.c","size":-1}`,
		`{"point":"room.join","subject":"@a:b.c","room":"!r:b.c"}`, `[[[[`, `{"point":1}`, `{"point":"contact","point":"contact"}`, ""} {
		f.Add(seed)
	}
	facts := QuestionFacts{Now: time.Now, Hosts: func(string) bool { return true },
		Party: func(id matrix.UserID) (*policy.Party, error) {
			return &policy.Party{Kind: "user", ID: string(id), Tenant: string(id.Server())}, nil
		}}
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		q := &request{Request: httptest.NewRequest("POST", "/", strings.NewReader(body))}
		var question Question
		err := q.decode(w, &question)
		if err == nil {
			_, err = question.Input(facts)
		}
		var e *matrix.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%q: %v", body, err)
		}
	})
}
