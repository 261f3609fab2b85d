package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/sirupsen/logrus"

	"hansa/config"
)

// slackOf names, in the environment of a test that is run as a process of its own, the database that it has.
const slackOf = "TEST_SLACK_OF"

// A node that uses PostgreSQL goes on in the same process, with relaxed timers; one that uses SQLite does not, nor one that was begun anew
// already.
func TestRelaxTimers(t *testing.T) {
	if database := os.Getenv(slackOf); database != "" {
		log := logrus.New()
		log.SetOutput(io.Discard)
		relaxTimers(context.WithValue(context.Background(), ownProcess{}, true), &config.Config{Database: database}, logrus.NewEntry(log))
		slack, err := timerSlackNow()
		fmt.Println(os.Getpid(), slack, err)
		os.Exit(0)
	}
	t.Parallel()
	for _, test := range []struct{ name, database, mark, want string }{
		{"postgres", "postgres://h/d", "", "2ms"},
		{"sqlite", "sqlite:h.db", "", "50µs"},
		{"begun anew already", "postgres://h/d", "2ms", "50µs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := exec.Command(os.Args[0], "-test.run=^TestRelaxTimers$")
			c.Env = append(os.Environ(), slackOf+"="+test.database, slackMark+"="+test.mark)
			out, err := c.Output()
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintln(c.Process.Pid, test.want, nil); string(out) != want {
				t.Errorf("got %q, want %q", out, want)
			}
		})
	}
}
