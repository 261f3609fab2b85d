package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/homeserver"
	"hansa/homeserver/adminapi"
	"hansa/matrix"
	"hansa/policy"
)

// The two organisations of the demo.
const (
	demoAcme   = "acme.localhost"
	demoGlobex = "globex.localhost"
)

func newDemo() *cobra.Command {
	var d demo
	c := verb(&cobra.Command{Use: "demo", Short: "Two organisations with people, pools and an agreement on this machine, to try with Matrix clients",
		RunE: func(c *cobra.Command, _ []string) error {
			if d.port < 1 || d.port > 65535 {
				return wrongUsage("--port must be between 1 and 65535")
			}
			return d.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr())
		}}, 0, 0, "none: makes a deployment of its own and serves it")
	c.Flags().StringVar(&d.dir, "dir", "demo", "where it lives; what is there is kept")
	c.Flags().IntVar(&d.port, "port", 8008, "where clients reach it")
	return c
}

// demo is one demonstration.
type demo struct {
	dir  string
	port int
	cl   client
}

// address is where clients reach a tenant. The two names of the loopback interface tell the tenants apart, and need no name server.
func (d *demo) address(tenant string) string {
	host := "127.0.0.1"
	if tenant == demoGlobex {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(d.port))
}

func (d *demo) run(ctx context.Context, out, errOut io.Writer) error {
	cfg, err := d.prepare()
	if err != nil {
		return err
	}
	password, err := d.password()
	if err != nil {
		return err
	}
	log, err := newLog(errOut, "warn")
	if err != nil {
		return err
	}
	s, err := homeserver.New(ctx, cfg, homeserver.Deps{Log: log, Version: version})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- s.Run(running) }()
	select {
	case <-s.Ready():
	case err := <-served:
		return err
	}
	d.cl.dial(cfg.AdminSocket())
	if err = d.populate(ctx, password); err == nil {
		err = d.tell(ctx, out, password)
	}
	if ctx.Err() != nil {
		err = nil // somebody did not want to wait
	}
	if err != nil {
		stop()
	}
	return errors.Join(err, <-served)
}

// prepare writes the deployment when it is not there, and reads it.
func (d *demo) prepare() (*config.Config, error) {
	file := filepath.Join(d.dir, "hansa.yaml")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		for name, text := range demoPolicy() {
			if err := writeIfAbsent(filepath.Join(d.dir, "policy", filepath.FromSlash(name)), text, 0o644); err != nil {
				return nil, err
			}
		}
		cfg := config.New(demoAcme, demoGlobex)
		for i := range cfg.Tenants {
			cfg.Tenants[i].PublicURL = d.address(string(cfg.Tenants[i].Name))
		}
		cfg.Listen.Client, cfg.Listen.Admin = d.listen(), ""
		if err := initialize(d.dir, "", cfg); err != nil {
			return nil, err
		}
	}
	cfg, err := config.Load(file, os.Environ())
	if err != nil {
		return nil, err
	}
	if len(cfg.Tenants) < 2 || cfg.Tenants[0].Name != demoAcme || cfg.Tenants[1].Name != demoGlobex {
		return nil, fmt.Errorf("%s is the configuration of something else; choose another --dir", file)
	}
	return config.Load(file, append(os.Environ(), "HANSA_LISTEN_CLIENT="+d.listen(),
		"HANSA_TENANTS_0_PUBLIC_URL="+d.address(demoAcme), "HANSA_TENANTS_1_PUBLIC_URL="+d.address(demoGlobex)))
}

func (d *demo) listen() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)) }

// password is the one that all people of the demo begin with. It is made once.
func (d *demo) password() (string, error) {
	file := filepath.Join(d.dir, "password")
	b, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	p, err := inventPassword()
	if err != nil {
		return "", err
	}
	p = p[:11]
	return p, writeNew(file, p+"\n", 0o600)
}

// person is somebody in the demo.
type person struct{ id, name, pool, note string }

func (p person) tenant() string { return string(matrix.UserID(p.id).Server()) }

func demoPeople() []person {
	return []person{
		{"@anna:" + demoAcme, "Anna", "research", "the agreement with Globex covers research"},
		{"@ben:" + demoAcme, "Ben", "research", "as Anna"},
		{"@carla:" + demoAcme, "Carla", "trading", "a closed pool: nobody else in it yet"},
		{"@dora:" + demoAcme, "Dora", "", "in no pool, and the administrator of Acme"},
		{"@erik:" + demoGlobex, "Erik", "", "the administrator of Globex"},
	}
}

// populate makes the people and the agreement, unless they are there. It uses the admin API, as the commands do.
func (d *demo) populate(ctx context.Context, password string) error {
	for _, p := range demoPeople() {
		u := adminapi.NewUser{UserID: p.id, Password: password, DisplayName: p.name, Admin: strings.Contains(p.note, "administrator")}
		if p.pool != "" {
			u.Pools = []string{p.pool}
		}
		err := d.cl.call(ctx, "POST", "/users", nil, u, nil)
		var r *refused
		if errors.As(err, &r) && r.Code == matrix.CodeUserInUse {
			continue
		}
		if err != nil {
			return fmt.Errorf("account of %s: %w", p.id, err)
		}
	}
	var list adminapi.AgreementList
	if err := d.cl.call(ctx, "GET", "/agreements", nil, nil, &list); err != nil || len(list.Agreements) > 0 {
		return err
	}
	terms := agreement.Terms{Pools: []policy.PoolPair{{Ours: "research", Theirs: "*"}}}
	if err := d.cl.call(ctx, "POST", "/agreements/"+demoGlobex+"/propose", url.Values{"tenant": {demoAcme}}, terms, nil); err != nil {
		return err
	}
	return d.cl.call(ctx, "POST", "/agreements/"+demoAcme+"/approve", url.Values{"tenant": {demoGlobex}}, nil, nil)
}

// try is something that a person may try.
type try struct {
	text string
	q    adminapi.Question
}

func tries() []try {
	id := func(name string) string {
		for _, p := range demoPeople() {
			if p.name == name {
				return p.id
			}
		}
		return ""
	}
	return []try{
		{"Anna invites Ben", adminapi.Question{Point: policy.RoomInvite, Subject: id("Anna"), Target: id("Ben")}},
		{"Anna invites Erik of Globex", adminapi.Question{Point: policy.RoomInvite, Subject: id("Anna"), Target: id("Erik")}},
		{"Anna invites Carla", adminapi.Question{Point: policy.RoomInvite, Subject: id("Anna"), Target: id("Carla")}},
		{"Dora starts a chat with Erik of Globex", adminapi.Question{Point: policy.RoomInvite, Subject: id("Dora"), Target: id("Erik")}},
		{"Erik looks for Carla in the directory", adminapi.Question{Point: policy.DirectorySearch, Subject: id("Erik"), Target: id("Carla")}},
		{"Ben reads the profile of Dora", adminapi.Question{Point: policy.ProfileRead, Subject: id("Ben"), Target: id("Dora")}},
		{"Carla sends a file", adminapi.Question{Point: policy.EventSend, Subject: id("Carla"), EventType: "m.room.message", MsgType: "m.file"}},
	}
}

// tell prints who can log in where, and what the policy says to some tries: it is really asked.
func (d *demo) tell(ctx context.Context, out io.Writer, password string) error {
	var people, answers [][]string
	for _, p := range demoPeople() {
		people = append(people, []string{p.id, p.pool, password, d.address(p.tenant()), p.note})
	}
	for _, t := range tries() {
		var a adminapi.Answer
		if err := d.cl.call(ctx, "POST", "/policy/explain", nil, t.q, &a); err != nil {
			return fmt.Errorf("%s: %w", t.text, err)
		}
		why := ""
		if n := len(a.Decision.Reasons); n > 0 {
			r := a.Decision.Reasons[n-1] // the last one is the most particular
			why = r.Code + ": " + r.Message
		}
		answers = append(answers, []string{t.text, answer(a.Decision.Allow), why})
	}
	_, _ = fmt.Fprintf(out, "\nTwo organisations, Acme and Globex, live in %s.\n\nWho can log in:\n\n", d.dir)
	table(out, []string{"USER", "POOL", "PASSWORD", "HOMESERVER", "NOTE"}, people)
	_, err := fmt.Fprintf(out, "\nWith which client: any Matrix client on this machine, such as Element (https://app.element.io, or the desktop app).\n"+
		"Give it the homeserver of the table and the whole user ID. For two people at once use two browsers, or a private window.\n"+
		"\nWhat to try, and what the policy answers:\n\n")
	if err != nil {
		return err
	}
	table(out, []string{"WHAT", "ANSWER", "WHY"}, answers)
	_, err = fmt.Fprintf(out, "\nThe rules stand in %s; a change that you save is active at once. To see more, in another terminal:\n\n"+
		"  %[4]s policy status -c %[2]s\n  %[4]s partner list -c %[2]s\n  %[4]s audit search -c %[2]s\n\nStop it with Ctrl-C. Deleting %[3]s forgets it.\n",
		filepath.Join(d.dir, "policy"), filepath.Join(d.dir, "hansa.yaml"), d.dir, os.Args[0])
	return err
}
