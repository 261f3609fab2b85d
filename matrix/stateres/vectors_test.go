package stateres

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"testing"

	"hansa/matrix"
	"hansa/matrix/event"
)

// vector is one resolution: a part of a room, state maps, and the state that another server found, too.
type vector struct {
	Version string          `json:"version"`
	Create  matrix.EventID  `json:"create"`
	Events  []vectorEvent   `json:"events"`
	States  [][]vectorEntry `json:"states"`
	Want    []vectorEntry   `json:"want"`
}

type vectorEvent struct {
	ID      matrix.EventID   `json:"id"`
	Type    string           `json:"type"`
	Sender  matrix.UserID    `json:"sender"`
	Key     *string          `json:"key"`
	Content json.RawMessage  `json:"content"`
	Prev    []matrix.EventID `json:"prev"`
	Auth    []matrix.EventID `json:"auth"`
	Depth   int64            `json:"depth"`
	TS      int64            `json:"ts"`
}

type vectorEntry struct {
	Type string         `json:"type"`
	Key  string         `json:"key"`
	ID   matrix.EventID `json:"id"`
}

func (v vector) room(t *testing.T) *room {
	t.Helper()
	version, ok := matrix.FindRoomVersion(v.Version)
	if !ok {
		t.Fatalf("room version %s is unknown", v.Version)
	}
	r := &room{
		t: t, v: version, events: make(map[matrix.EventID]*event.Event), after: make(map[matrix.EventID]stateMap),
		ranks: make(map[matrix.EventID]Node), named: make(map[string]*event.Event),
	}
	id := matrix.RoomID("!r:a.example")
	if version.RoomIDHash {
		id = matrix.RoomID("!" + v.Create[1:])
	}
	for _, e := range v.Events {
		r.put(&event.Event{
			Version: version, ID: e.ID, RoomID: id, Type: e.Type, StateKey: e.Key, Sender: e.Sender, Content: []byte(e.Content),
			PrevEvents: e.Prev, AuthEvents: e.Auth, Depth: e.Depth, OriginServerTS: e.TS,
		}, stateMap{})
	}
	r.create = r.events[v.Create]
	r.ref = &reference{create: r.create, events: r.events, rejected: idSet{}, chains: make(map[matrix.EventID]idSet)}
	return r
}

func stateOf(entries []vectorEntry) stateMap {
	s := stateMap{}
	for _, e := range entries {
		s[event.StateKey{Type: e.Type, Key: e.Key}] = e.ID
	}
	return s
}

// TestA78_Vectors resolves forks on which the code of Synapse (1.98; its version 2 with the changes of 2.1 for version 12) came to the
// same state.
func TestA78_Vectors(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/agreed.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, seen := bufio.NewScanner(f), 0
	lines.Buffer(nil, 1<<20)
	for ; lines.Scan(); seen++ {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("line %d: %v", seen+1, err)
		}
		r, want := v.room(t), stateOf(v.Want)
		var states []stateMap
		for _, s := range v.States {
			states = append(states, stateOf(s))
		}
		if got := r.resolve(states); !maps.Equal(got, want) {
			t.Errorf("line %d, version %s: resolved to %v, want %v", seen+1, v.Version, got, want)
		}
		if got := r.ref.resolve(states); !maps.Equal(got, want) {
			t.Errorf("line %d, version %s: the reference resolves to %v, want %v", seen+1, v.Version, got, want)
		}
	}
	if lines.Err() != nil || seen < 60 {
		t.Errorf("%d vectors, %v", seen, lines.Err())
	}
}
