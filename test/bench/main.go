// Command bench loads a Matrix homeserver over its public client-server API and reports what it did.
//
// It registers users, makes public rooms, holds /sync open for the users, sends from a number of senders that each wait for
// their answer before the next, and prints JSON: sends per second, latency of a send, latency from the send to the /sync of
// another user, losses (delivered against expected), and the CPU and memory of the server.
//
//	go run ./test/bench -url http://127.0.0.1:8008 -shape small -seconds 20 -pid 1234
//	go run ./test/bench -start bin/hansa -databases sqlite,postgres -shape small,hot,wide
//	go run ./test/bench -start bin/hansa -databases postgres -nodes 2
//
// The first form drives any server that allows registration and limits no rates. The second starts a new server for each
// database and shape; postgres needs a running service whose URL is in HANSA_TEST_POSTGRES, and psql to make databases.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// shape is the form of a load.
type shape struct {
	name                           string
	users, rooms, members, senders int
}

// shapes are the forms that results are compared in.
func shapes() []shape {
	return []shape{
		{"small", 40, 10, 8, 16},
		{"hot", 40, 1, 40, 16},
		{"wide", 200, 100, 20, 32},
	}
}

func findShape(name string) (shape, error) {
	var names []string
	for _, s := range shapes() {
		if s.name == name {
			return s, nil
		}
		names = append(names, s.name)
	}
	return shape{}, fmt.Errorf("there is no shape %q, but %s", name, strings.Join(names, ", "))
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	urls := fs.String("url", "http://127.0.0.1:8008", "base URL of the client-server API; of several nodes with commas")
	pid := fs.Int("pid", 0, "process of the server, to report its CPU and memory")
	fs.StringVar(&o.spread, "spread", "user", "with several nodes: user or room (what has to do with one goes to one node), or request (by turns)")
	fs.IntVar(&o.nodes, "nodes", 1, "with -start: nodes on one database, which has to be postgres for more than one")
	fs.StringVar(&o.nats, "nats", "", "with -start: URL of the NATS for the nodes")
	fs.StringVar(&o.token, "regtoken", "", "registration token, where the server wants one")
	fs.StringVar(&o.version, "roomversion", "", "version of the rooms, if not the server's default")
	fs.IntVar(&o.seconds, "seconds", 20, "length of the sending phase")
	fs.IntVar(&o.syncers, "syncers", -1, "users that hold /sync open (-1: all)")
	fs.IntVar(&o.size, "size", 100, "bytes in a message")
	names := fs.String("shape", "small", "small, hot or wide; several with commas")
	users := fs.Int("users", 0, "users to register, if not the shape's number")
	rooms := fs.Int("rooms", 0, "rooms to make, if not the shape's number")
	members := fs.Int("members", 0, "members of each room, if not the shape's number")
	senders := fs.Int("senders", 0, "senders, if not the shape's number")
	binary := fs.String("start", "", "hansa binary to start for each run, instead of -url")
	databases := fs.String("databases", "sqlite", "with -start: sqlite, postgres or both with a comma")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if !slices.Contains([]string{"user", "room", "request"}, o.spread) {
		return fmt.Errorf("there is no spread %q, but user, room and request", o.spread)
	}
	o.urls, o.pids = strings.Split(*urls, ","), []int{*pid}
	stores := []string{""}
	if *binary != "" {
		stores = strings.Split(*databases, ",")
	}
	for _, store := range stores {
		for _, name := range strings.Split(*names, ",") {
			s, err := findShape(name)
			if err != nil {
				return err
			}
			for _, v := range []struct{ to, from *int }{{&s.users, users}, {&s.rooms, rooms}, {&s.members, members}, {&s.senders, senders}} {
				if *v.from > 0 {
					*v.to = *v.from
				}
			}
			one := o
			one.shape = s
			if err := runOne(ctx, *binary, store, one, stdout, stderr); err != nil {
				return err
			}
		}
	}
	return nil
}

// runOne loads one server with one shape and prints the result.
func runOne(ctx context.Context, binary, store string, o options, stdout, stderr io.Writer) error {
	if binary != "" {
		srv, err := startServer(ctx, binary, store, o, stderr)
		if err != nil {
			return fmt.Errorf("start a server on %s: %w", store, err)
		}
		defer srv.stop()
		o.urls, o.pids = srv.urls, srv.pids()
	}
	fmt.Fprintf(stderr, "bench: %s %s on %d nodes: %d users, %d rooms of %d, %d senders, %d s\n",
		store, o.shape.name, len(o.urls), o.shape.users, o.shape.rooms, o.shape.members, o.shape.senders, o.seconds)
	result, err := load(ctx, o, stderr)
	if err != nil {
		return err
	}
	result.Database = store
	text, err := json.MarshalIndent(result, "", " ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, string(text))
	return err
}
