//go:build interop

package interop_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hansa/storage/storagetest"
)

// TestInterop is all of it with one pair of servers after the other: Hansa on SQLite, and on PostgreSQL. HANSA_INTEROP_DATABASE chooses one.
func TestInterop(t *testing.T) {
	only := os.Getenv("HANSA_INTEROP_DATABASE")
	for _, database := range storagetest.Databases() {
		if only == "" || only == database {
			t.Run(database, func(t *testing.T) { interop(t, database) })
		}
	}
}

// interop is one part after the other.
func interop(t *testing.T, database string) {
	c := newCell(t, database)
	here, there := c.add(hansaName, "anna"), c.add(synapseName, "bert")
	for _, part := range []struct {
		name string
		run  func(t *testing.T, here, there *person)
	}{
		{"versions", versions}, {"invite", bothWays(invite)}, {"reject", bothWays(reject)}, {"knock", bothWays(knock)}, {"restricted", bothWays(restricted)},
		{"history", bothWays(history)}, {"state", bothWays(state)}, {"media", bothWays(media)}, {"typing and receipts", bothWays(typing)}, {"presence", bothWays(presence)},
		{"lookups", bothWays(lookups)}, {"encryption", encryption}, {"restarts", restarts}, {"denied", denied}, {"suspended", suspended},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, here.in(t), there.in(t)) })
	}
	c.checkLog()
}

// bothWays runs a part with the room on either side.
func bothWays(run func(t *testing.T, owner, guest *person)) func(*testing.T, *person, *person) {
	return func(t *testing.T, here, there *person) {
		t.Run("of hansa", func(t *testing.T) { run(t, here.in(t), there.in(t)) })
		t.Run("of synapse", func(t *testing.T) { run(t, there.in(t), here.in(t)) })
	}
}

// versions has a room of every version on either side: joined from the other, talked in, left.
func versions(t *testing.T, here, there *person) {
	for v := 1; v <= 12; v++ {
		t.Run(strconv.Itoa(v), bothWaysIn(func(t *testing.T, owner, guest *person) {
			room := owner.create(map[string]any{"preset": "public_chat", "room_version": strconv.Itoa(v)})
			guest.join(room, owner.server)
			owner.membership(room, guest.id, "join")
			owner.send(room, "from the owner")
			guest.send(room, "from the guest")
			owner.sees(room, "from the guest")
			guest.sees(room, "from the owner")
			guest.must("POST", "/rooms/"+esc(room)+"/leave", nil)
			owner.membership(room, guest.id, "leave")
			guest.join(room, owner.server)
			owner.membership(room, guest.id, "join")
			owner.send(room, "welcome back")
			guest.sees(room, "welcome back")
		}, here, there))
	}
}

func bothWaysIn(run func(t *testing.T, owner, guest *person), here, there *person) func(*testing.T) {
	return func(t *testing.T) { bothWays(run)(t, here, there) }
}

func invite(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "private_chat", "name": "By invitation", "is_direct": true, "invite": []string{guest.id}})
	guest.invited(room)
	guest.join(room, owner.server)
	owner.membership(room, guest.id, "join")
	guest.state(room, "m.room.name", "name", "By invitation")
	guest.send(room, "thanks")
	owner.sees(room, "thanks")
	owner.must("POST", "/rooms/"+esc(room)+"/kick", map[string]any{"user_id": guest.id})
	guest.membership(room, guest.id, "leave")
	guest.refused(http.StatusForbidden, "POST", "/join/"+esc(room)+"?server_name="+owner.server, nil)
	owner.must("POST", "/rooms/"+esc(room)+"/invite", map[string]any{"user_id": guest.id})
	guest.invited(room)
	guest.join(room, owner.server)
	owner.send(room, "again")
	guest.sees(room, "again")
}

func reject(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "private_chat", "invite": []string{guest.id}})
	guest.invited(room)
	guest.must("POST", "/rooms/"+esc(room)+"/leave", nil)
	owner.membership(room, guest.id, "leave")
	// And an invitation that is taken back.
	owner.must("POST", "/rooms/"+esc(room)+"/invite", map[string]any{"user_id": guest.id})
	guest.invited(room)
	owner.must("POST", "/rooms/"+esc(room)+"/kick", map[string]any{"user_id": guest.id})
	guest.sync("no invitation any more", func(a answer) bool { return a.get("rooms", "invite", room) == nil })
}

func knock(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "private_chat", "room_version": "10",
		"initial_state": []any{map[string]any{"type": "m.room.join_rules", "state_key": "", "content": map[string]any{"join_rule": "knock"}}}})
	guest.refused(http.StatusForbidden, "POST", "/join/"+esc(room)+"?server_name="+owner.server, nil)
	guest.must("POST", "/knock/"+esc(room)+"?server_name="+owner.server+"&via="+owner.server, map[string]any{"reason": "let me in"})
	owner.membership(room, guest.id, "knock")
	guest.sync("knocking", func(a answer) bool { return a.get("rooms", "knock", room) != nil })
	owner.must("POST", "/rooms/"+esc(room)+"/invite", map[string]any{"user_id": guest.id})
	guest.invited(room)
	guest.join(room, owner.server)
	guest.send(room, "inside")
	owner.sees(room, "inside")
}

func restricted(t *testing.T, owner, guest *person) {
	for _, version := range []string{"8", "10", "12"} {
		gate := owner.create(map[string]any{"preset": "public_chat"})
		room := owner.create(map[string]any{"preset": "private_chat", "room_version": version,
			"initial_state": []any{map[string]any{"type": "m.room.join_rules", "state_key": "",
				"content": map[string]any{"join_rule": "restricted", "allow": []any{map[string]any{"type": "m.room_membership", "room_id": gate}}}}}})
		guest.refused(http.StatusForbidden, "POST", "/join/"+esc(room)+"?server_name="+owner.server, nil)
		guest.join(gate, owner.server)
		owner.membership(gate, guest.id, "join")
		guest.join(room, owner.server)
		guest.send(room, "inside")
		owner.sees(room, "inside")
	}
}

// history lets the guest read what was written before the join.
func history(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "public_chat"})
	for i := range 120 {
		owner.send(room, fmt.Sprint("line ", i))
	}
	guest.join(room, owner.server)
	until(t, "all lines are there", func() error {
		seen, from := map[string]bool{}, ""
		for range 20 {
			a := guest.must("GET", "/rooms/"+esc(room)+"/messages?dir=b&limit=30"+from, nil)
			for _, e := range a.list("chunk") {
				seen[body(e.(map[string]any))] = true
			}
			if a.text("end") == "" {
				break
			}
			from = "&from=" + a.text("end")
		}
		for i := range 120 {
			if !seen[fmt.Sprint("line ", i)] {
				return fmt.Errorf("line %d is missing, %d are there", i, len(seen))
			}
		}
		return nil
	})
}

// state has either side change the room and redact.
func state(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "public_chat"})
	guest.join(room, owner.server)
	owner.membership(room, guest.id, "join")
	owner.must("PUT", "/rooms/"+esc(room)+"/state/m.room.topic", map[string]any{"topic": "first"})
	guest.state(room, "m.room.topic", "topic", "first")
	levels := owner.must("GET", "/rooms/"+esc(room)+"/state/m.room.power_levels", nil).json
	users, _ := levels["users"].(map[string]any)
	if users == nil {
		users = map[string]any{}
	}
	users[guest.id] = 50
	levels["users"] = users
	owner.must("PUT", "/rooms/"+esc(room)+"/state/m.room.power_levels", levels)
	until(t, "the guest may change the topic", func() error {
		if a := guest.try("PUT", "/rooms/"+esc(room)+"/state/m.room.topic", map[string]any{"topic": "second"}); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
	owner.state(room, "m.room.topic", "topic", "second")
	bad := guest.send(room, "a slip")
	owner.sees(room, "a slip")
	owner.must("PUT", "/rooms/"+esc(room)+"/redact/"+esc(bad)+"/r1"+owner.server, map[string]any{})
	until(t, "the redaction has arrived", func() error {
		if guest.has(room, "a slip") {
			return fmt.Errorf("the text is still there")
		}
		return nil
	})
	own := guest.send(room, "another slip")
	owner.sees(room, "another slip")
	guest.must("PUT", "/rooms/"+esc(room)+"/redact/"+esc(own)+"/r2"+guest.server, map[string]any{})
	until(t, "the guest's redaction has arrived", func() error {
		if owner.has(room, "another slip") {
			return fmt.Errorf("the text is still there")
		}
		return nil
	})
	// Both at the same time: one state in the end.
	for i := range 5 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			guest.try("PUT", "/rooms/"+esc(room)+"/state/m.room.topic", map[string]any{"topic": fmt.Sprint("guest ", i)})
		}()
		owner.must("PUT", "/rooms/"+esc(room)+"/state/m.room.topic", map[string]any{"topic": fmt.Sprint("owner ", i)})
		<-done
	}
	owner.send(room, "settled")
	guest.sees(room, "settled")
	guest.send(room, "settled here too")
	owner.sees(room, "settled here too")
	until(t, "both see one topic", func() error {
		a, b := owner.must("GET", "/rooms/"+esc(room)+"/state/m.room.topic", nil).text("topic"), guest.must("GET", "/rooms/"+esc(room)+"/state/m.room.topic", nil).text("topic")
		if a != b {
			return fmt.Errorf("%q and %q", a, b)
		}
		return nil
	})
}

func media(t *testing.T, owner, guest *person) {
	data := bytes.Repeat([]byte("media of "+owner.id+"\n"), 5000)
	a, err := owner.c.do("POST", owner.base, "/_matrix/media/v3/upload?filename=x.txt", owner.token, "text/plain", data)
	uri, ok := strings.CutPrefix(a.text("content_uri"), "mxc://")
	if err != nil || !ok {
		t.Fatalf("upload: %v, %d %s", err, a.status, a.raw)
	}
	server, id, _ := strings.Cut(uri, "/")
	until(t, "the file is there", func() error {
		a, err := guest.c.do("GET", guest.base, "/_matrix/client/v1/media/download/"+server+"/"+id, guest.token, "", nil)
		if err != nil || a.status != http.StatusOK || !bytes.Equal(a.raw, data) {
			return fmt.Errorf("%w: %d, %d bytes: %.200s", err, a.status, len(a.raw), a.raw)
		}
		return nil
	})
}

func typing(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "public_chat"})
	guest.join(room, owner.server)
	owner.membership(room, guest.id, "join")
	for _, pair := range [][2]*person{{owner, guest}, {guest, owner}} {
		from, to := pair[0], pair[1]
		to.sync("sees the typing of "+from.id, func(a answer) bool {
			from.must("PUT", "/rooms/"+esc(room)+"/typing/"+esc(from.id), map[string]any{"typing": true, "timeout": 20000})
			for _, e := range a.list("rooms", "join", room, "ephemeral", "events") {
				if s := fmt.Sprint(e); strings.Contains(s, "m.typing") && strings.Contains(s, from.id) {
					return true
				}
			}
			return false
		})
		event := to.send(room, "read this, "+from.server)
		from.sees(room, "read this, "+from.server)
		from.must("POST", "/rooms/"+esc(room)+"/receipt/m.read/"+esc(event), map[string]any{})
		to.sync("sees the receipt of "+from.id, func(a answer) bool {
			for _, e := range a.list("rooms", "join", room, "ephemeral", "events") {
				if s := fmt.Sprint(e); strings.Contains(s, "m.receipt") && strings.Contains(s, from.id) && strings.Contains(s, event) {
					return true
				}
			}
			return false
		})
	}
}

func presence(t *testing.T, owner, guest *person) {
	room := owner.create(map[string]any{"preset": "public_chat"})
	guest.join(room, owner.server)
	owner.membership(room, guest.id, "join")
	words := "busy on " + owner.server
	n := 0
	until(t, "the presence is seen", func() error {
		n++
		if n%20 == 1 {
			owner.must("PUT", "/presence/"+esc(owner.id)+"/status", map[string]any{"presence": "online", "status_msg": fmt.Sprint(words, n)})
		}
		if a := guest.try("GET", "/presence/"+esc(owner.id)+"/status", nil); !strings.HasPrefix(a.text("status_msg"), words) {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
}

// lookups asks for profiles, aliases and published rooms of the other side.
func lookups(t *testing.T, owner, guest *person) {
	owner.must("PUT", "/profile/"+esc(owner.id)+"/displayname", map[string]any{"displayname": "Name of " + owner.server})
	until(t, "the profile is seen", func() error {
		if a := guest.try("GET", "/profile/"+esc(owner.id), nil); a.text("displayname") != "Name of "+owner.server {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
	guest.refused(http.StatusNotFound, "GET", "/profile/"+esc("@nobody-at-all:"+owner.server), nil)
	room := owner.create(map[string]any{"preset": "public_chat", "visibility": "public", "room_alias_name": "lobby", "name": "Lobby of " + owner.server})
	if a := guest.must("GET", "/directory/room/"+esc("#lobby:"+owner.server), nil); a.text("room_id") != room {
		t.Errorf("the alias leads to %s", a.raw)
	}
	guest.refused(http.StatusNotFound, "GET", "/directory/room/"+esc("#nothing:"+owner.server), nil)
	guest.must("POST", "/join/"+esc("#lobby:"+owner.server), nil)
	owner.membership(room, guest.id, "join")
	a := guest.must("POST", "/publicRooms?server="+owner.server, map[string]any{"limit": 50})
	if !strings.Contains(string(a.raw), room) {
		t.Errorf("the list of rooms lacks %s: %s", room, a.raw)
	}
}

// encryption runs the scenario of matrix-js-sdk with people of the two servers.
func encryption(t *testing.T, here, there *person) {
	node := filepath.Join("node_modules", ".bin", "node")
	clients, err := filepath.Abs("../clients")
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]*person{{here, there}, {there, here}} {
		alice, bob := pair[0], pair[1]
		t.Run("room of "+alice.server, func(t *testing.T) {
			a, b := alice.c.add(alice.server, "alice-"+alice.server[:5]), bob.c.add(bob.server, "bob-"+bob.server[:5])
			cmd := exec.Command(node, "jssdk/encryption.mjs")
			cmd.Dir = clients
			cmd.Env = append(os.Environ(), "HANSA_URL="+a.base, "HANSA_BOB_SERVER="+b.base, "HANSA_ALICE="+a.id, "HANSA_BOB="+b.id, "HANSA_ALICE_PASSWORD="+password, "HANSA_BOB_PASSWORD="+password,
				"HANSA_CLIENT_OUTPUT="+t.TempDir(), "HANSA_CLIENT_PATIENCE_MS=60000")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("encryption: %v\n%s", err, out)
			}
		})
	}
}

// restarts stops each side in the middle of a conversation.
func restarts(t *testing.T, here, there *person) {
	room := here.create(map[string]any{"preset": "public_chat"})
	there.join(room, here.server)
	here.membership(room, there.id, "join")
	for _, down := range []struct {
		p           *process
		still, gone *person
	}{{here.c.synapse, here, there}, {here.c.hansa, there, here}} {
		down.p.stop()
		var lines []string
		for i := range 30 {
			lines = append(lines, fmt.Sprintf("while %s is away %d", down.p.name, i))
			down.still.send(room, lines[i])
		}
		down.p.start()
		down.gone.sees(room, lines...)
		down.gone.send(room, down.p.name+" is back")
		down.still.sees(room, down.p.name+" is back")
	}
}

// denied has a rule against one person of the partner.
func denied(t *testing.T, here, there *person) {
	c := here.c
	mallory := c.add(synapseName, "mallory").in(t)
	room := here.create(map[string]any{"preset": "public_chat"})
	mallory.join(room, hansaName)
	there.join(room, hansaName)
	mallory.send(room, "harmless")
	here.sees(room, "harmless")
	rule := "package tenants[\"" + hansaName + "\"].%s\n\ndeny contains {\"code\": \"unwanted\", \"message\": \"This person is unwanted.\"} if input.%s.id == \"" + mallory.id + "\"\n"
	policy := filepath.Join(filepath.Dir(c.config), "policy", hansaName)
	for point, who := range map[string]string{"event.receive": "subject", "room.invite": "subject", "room.join": "subject"} {
		write(t, filepath.Join(policy, "unwanted_"+strings.ReplaceAll(point, ".", "_")+".rego"), fmt.Sprintf(rule, point, who))
	}
	write(t, filepath.Join(policy, "unwanted_invited.rego"), fmt.Sprintf(rule, "room.invite", "target"))
	until(t, "the rule holds", func() error {
		if a := mallory.try("POST", "/createRoom", map[string]any{"preset": "private_chat", "invite": []string{here.id}}); a.status == http.StatusOK {
			return fmt.Errorf("the invitation went through")
		}
		return nil
	})
	mallory.send(room, "CANARY of the denied")
	there.sees(room, "CANARY of the denied")
	there.send(room, "after the canary")
	here.sees(room, "after the canary")
	if here.has(room, "CANARY of the denied") {
		t.Error("the message of the denied user is seen")
	}
	if a := here.must("GET", "/sync?timeout=0", nil); bytes.Contains(a.raw, []byte("CANARY of the denied")) {
		t.Error("the message of the denied user is in /sync")
	}
	another := here.create(map[string]any{"preset": "public_chat"})
	here.refused(http.StatusForbidden, "POST", "/rooms/"+esc(another)+"/invite", map[string]any{"user_id": mallory.id})
	mallory.refused(http.StatusForbidden, "POST", "/join/"+esc(another)+"?server_name="+hansaName, nil)
	// Without the rule, what was withheld is there.
	files, err := filepath.Glob(filepath.Join(policy, "unwanted_*.rego"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	here.sees(room, "CANARY of the denied")
}

// suspended takes the agreement away for a while: nothing goes in or out, a room of ours is cleared, and one of theirs is closed to our people.
func suspended(t *testing.T, here, there *person) {
	c := here.c
	ours := here.create(map[string]any{"preset": "public_chat"})
	theirs := there.create(map[string]any{"preset": "public_chat"})
	there.join(ours, hansaName)
	here.join(theirs, synapseName)
	there.send(ours, "while it holds")
	there.send(theirs, "while it holds")
	here.sees(ours, "while it holds")
	here.sees(theirs, "while it holds")
	here.send(theirs, "from here")
	there.sees(theirs, "from here")

	c.verb("", "partner", "suspend", hansaName, synapseName, "-c", c.config)
	begin := time.Now()
	until(t, "the partner is refused", func() error {
		if a := here.try("GET", "/profile/"+esc(there.id), nil); a.status == http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
	if d := time.Since(begin); d > time.Second {
		t.Errorf("it took %v until the partner was refused, want a second at most", d)
	}
	if a := there.try("POST", "/createRoom", map[string]any{"preset": "private_chat", "invite": []string{here.id}}); a.status == http.StatusOK {
		t.Error("an invitation of the suspended partner went through")
	}
	fresh := here.create(map[string]any{"preset": "public_chat"})
	there.refused(http.StatusForbidden, "POST", "/join/"+esc(fresh)+"?server_name="+hansaName, nil)
	here.refused(http.StatusForbidden, "POST", "/rooms/"+esc(fresh)+"/invite", map[string]any{"user_id": there.id})
	another := there.create(map[string]any{"preset": "public_chat"})
	here.refused(http.StatusForbidden, "POST", "/join/"+esc(another)+"?server_name="+synapseName, nil)
	here.refused(http.StatusForbidden, "PUT", "/rooms/"+esc(theirs)+"/send/m.room.message/suspended", map[string]any{"msgtype": "m.text", "body": "into their room"})
	until(t, "our room is cleared", func() error {
		if a := here.try("PUT", "/rooms/"+esc(ours)+"/send/m.room.message/cleared", map[string]any{"msgtype": "m.text", "body": "SECRET of the others"}); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
	there.membership(ours, there.id, "leave") // the partner is told, so that it need not guess
	there.send(theirs, "CANARY of the suspended")

	c.verb("", "partner", "approve", hansaName, synapseName, "-c", c.config)
	until(t, "it works again", func() error {
		if a := here.try("PUT", "/rooms/"+esc(theirs)+"/send/m.room.message/approved", map[string]any{"msgtype": "m.text", "body": "approved again"}); a.status != http.StatusOK {
			return fmt.Errorf("%d %s", a.status, a.raw)
		}
		return nil
	})
	there.sees(theirs, "approved again")
	there.send(theirs, "and back")
	here.sees(theirs, "and back", "CANARY of the suspended")
	there.join(fresh, hansaName)
	here.membership(fresh, there.id, "join")
	there.join(ours, hansaName)
	here.membership(ours, there.id, "join")
	there.send(ours, "in again")
	here.sees(ours, "in again")
}

// checkLog fails where Hansa logged an error or a panic.
func (c *cell) checkLog() {
	data, err := os.ReadFile(c.hansa.log)
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		for _, mark := range []string{`"level":"error"`, `"level":"fatal"`, "panic:"} {
			if strings.Contains(line, mark) {
				c.t.Errorf("Hansa logged: %s", line)
			}
		}
	}
}
