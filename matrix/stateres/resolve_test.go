package stateres

import (
	"testing"

	"hansa/matrix/auth"
)

const (
	bob     = "@bob:b.example"
	charlie = "@charlie:c.example"
	ella    = "@ella:e.example"
	zara    = "@zara:z.example"
	eve     = "@eve:e.example"
)

// found is the beginning of a public room: Alice, her power levels, the join rules.
func (r *room) found() {
	r.member("alice", "create", alice, alice, "join")
	r.send("levels", []string{"alice"}, alice, auth.TypePowerLevels, "", r.levels())
	r.send("public", []string{"levels"}, alice, auth.TypeJoinRules, "", `{"join_rule":"public"}`)
}

// TestA57_ProblemA is the first state reset that MSC4297 describes: two servers were given an old part of the state, and
// each of the two memberships that follow was sent by somebody who is in conflict.
//
// create <- alice <- levels <- public <- bob <- charlie <- private <- alice leaves <- bob++ and charlie++
func TestA57_ProblemA(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.member("bob", "public", bob, bob, "join")
		r.member("charlie", "bob", charlie, charlie, "join")
		r.send("private", []string{"charlie"}, alice, auth.TypeJoinRules, "", `{"join_rule":"invite"}`)
		r.member("alice leaves", "private", alice, alice, "leave")
		r.send("bob++", []string{"alice leaves"}, bob, auth.TypeMember, bob, `{"membership":"join","displayname":"b"}`)
		r.send("charlie++", []string{"alice leaves"}, charlie, auth.TypeMember, charlie, `{"membership":"join","displayname":"c"}`)
		states := []stateMap{
			r.state("levels", "private", "alice leaves", "bob++", "charlie"),
			r.state("levels", "public", "alice leaves", "bob", "charlie++"),
		}
		if r.v.ID == "12" {
			r.expect(states, "levels", "private", "alice leaves", "bob++", "charlie++")
			return
		}
		// Both join rules were sent by Alice, who is gone in the unconflicted state: the room is left without any.
		r.expect(states, "levels", "alice leaves", "bob++", "charlie++")
	})
}

// TestA58_ProblemB is the second one: a server believes in the first power levels and misses those between them and the
// current ones, which nobody in the conflict cites.
func TestA58_ProblemB(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.member("bob", "public", bob, bob, "join")
		r.member("charlie", "bob", charlie, charlie, "join")
		r.send("levels bob", []string{"charlie"}, alice, auth.TypePowerLevels, "", r.levels(bob, 50))
		r.send("levels both", []string{"levels bob"}, bob, auth.TypePowerLevels, "", r.levels(bob, 50, charlie, 50))
		r.member("zara", "levels both", zara, zara, "join")
		r.member("eve", "levels both", eve, eve, "join")
		r.send("eve++", []string{"eve"}, eve, auth.TypeMember, eve, `{"membership":"join","displayname":"e"}`)
		states := []stateMap{
			r.state("alice", "levels", "public", "bob", "charlie", "eve++"),
			r.state("alice", "levels both", "public", "bob", "charlie", "zara"),
		}
		levels := "levels"
		if r.v.ID == "12" {
			levels = "levels both"
		}
		r.expect(states, "alice", levels, "public", "bob", "charlie", "eve++", "zara")
	})
}

func TestResolve_BanAgainstTopic(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.member("bob", "public", bob, bob, "join")
		r.send("levels bob", []string{"bob"}, alice, auth.TypePowerLevels, "", r.levels(bob, 50))
		r.member("ban", "levels bob", alice, bob, "ban")
		r.send("topic", []string{"levels bob"}, bob, "m.room.topic", "", `{"topic":"x"}`)
		r.expect([]stateMap{r.after[r.named["ban"].ID], r.after[r.named["topic"].ID]}, "alice", "levels bob", "public", "ban")
	})
}

func TestResolve_BanAgainstPowerLevels(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.member("bob", "public", bob, bob, "join")
		r.send("levels bob", []string{"bob"}, alice, auth.TypePowerLevels, "", r.levels(bob, 50))
		r.send("coup", []string{"levels bob"}, bob, auth.TypePowerLevels, "", r.levels(bob, 50, zara, 50))
		r.member("ban", "levels bob", alice, bob, "ban")
		r.expect([]stateMap{r.after[r.named["ban"].ID], r.after[r.named["coup"].ID]}, "alice", "levels bob", "public", "ban")
	})
}

func TestResolve_JoinRulesAgainstJoin(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.send("private", []string{"public"}, alice, auth.TypeJoinRules, "", `{"join_rule":"invite"}`)
		r.member("ella", "public", ella, ella, "join")
		r.expect([]stateMap{r.after[r.named["private"].ID], r.after[r.named["ella"].ID]}, "alice", "levels", "private")
	})
}

func TestResolve_ConcurrentJoins(t *testing.T) {
	t.Parallel()
	everyVersion(t, matrix12(), func(t *testing.T, r *room) {
		r.found()
		r.member("ella", "public", ella, ella, "join")
		r.member("charlie", "public", charlie, charlie, "join")
		r.expect([]stateMap{r.after[r.named["ella"].ID], r.after[r.named["charlie"].ID]},
			"alice", "levels", "public", "ella", "charlie")
	})
}

// Power levels of an administrator come first, so that those of the moderator, which rest on older ones, fail.
func TestResolve_AdministratorAgainstModerator(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.member("bob", "public", bob, bob, "join")
		r.send("levels bob", []string{"bob"}, alice, auth.TypePowerLevels, "", r.levels(bob, 50))
		r.send("by bob", []string{"levels bob"}, bob, auth.TypePowerLevels, "", r.levels(bob, 50, zara, 40))
		r.send("by alice", []string{"levels bob"}, alice, auth.TypePowerLevels, "", r.levels(bob, 0))
		r.expect([]stateMap{r.after[r.named["by bob"].ID], r.after[r.named["by alice"].ID]},
			"alice", "bob", "public", "by alice")
	})
}

// The later of two topics with the same mainline position wins, whatever the order of the forks.
func TestResolve_Timestamp(t *testing.T) {
	t.Parallel()
	everyVersion(t, fromV2(), func(t *testing.T, r *room) {
		r.found()
		r.send("early", []string{"public"}, alice, "m.room.topic", "", `{"topic":"early"}`)
		r.send("late", []string{"public"}, alice, "m.room.topic", "", `{"topic":"late"}`)
		a, b := r.after[r.named["early"].ID], r.after[r.named["late"].ID]
		r.expect([]stateMap{a, b}, "alice", "levels", "public", "late")
		r.expect([]stateMap{b, a}, "alice", "levels", "public", "late")
	})
}

// Version 1 orders by depth: the first power levels count, later ones must be allowed by them.
func TestResolve_Version1(t *testing.T) {
	t.Parallel()
	r := newRoom(t, "1")
	r.found()
	r.member("bob", "public", bob, bob, "join")
	r.send("levels bob", []string{"bob"}, alice, auth.TypePowerLevels, "", r.levels(bob, 50))
	r.member("ban", "levels bob", alice, bob, "ban")
	r.send("topic", []string{"levels bob"}, bob, "m.room.topic", "", `{"topic":"x"}`)
	r.send("topic 2", []string{"topic"}, bob, "m.room.topic", "", `{"topic":"y"}`)
	// Nothing but one fork has a topic: no conflict. Bob's membership: the older one first, then the ban, which is allowed.
	r.expect([]stateMap{r.after[r.named["ban"].ID], r.after[r.named["topic 2"].ID]},
		"alice", "levels bob", "public", "ban", "topic 2")
	// Two topics of Bob, who is banned now: none is allowed, the oldest stays.
	banned := r.after[r.named["ban"].ID]
	banned[r.named["topic"].Key()] = r.named["topic"].ID
	r.expect([]stateMap{banned, r.after[r.named["topic 2"].ID]}, "alice", "levels bob", "public", "ban", "topic")
}

func matrix12() []string { return append([]string{"1"}, fromV2()...) }
