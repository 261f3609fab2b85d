package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// PanicError is a panic that was caught: a bug of ours, which shall end one job or one request and nothing else.
type PanicError struct {
	// Value is what was panicked with, Place the function that did, Stack the whole stack.
	Value, Place, Stack string
}

// Error implements error.
func (e *PanicError) Error() string { return "panic: " + e.Value + " in " + e.Place }

// Guard runs a function and makes an error of a panic.
func Guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := string(debug.Stack())
			err = &PanicError{Value: fmt.Sprint(p), Place: place(stack), Stack: stack}
		}
	}()
	return fn()
}

// place is the function in a stack that has panicked.
func place(stack string) string {
	_, rest, _ := strings.Cut(stack, "\npanic(")
	lines := strings.Split(rest, "\n")
	for _, line := range lines[min(1, len(lines)):] { // the first is the end of the call of panic
		if line != "" && line[0] != '\t' && !strings.HasPrefix(line, "runtime.") {
			name, _, _ := strings.Cut(line, "(0x")
			return strings.TrimSuffix(name, "(...)")
		}
	}
	return "?"
}

// maxPanics is how often in a row a job may panic in the same way until it is given up.
const maxPanics = 3

// panics counts those of one job.
type panics struct {
	last string
	n    int
}

// again tells whether a job that has ended with an error may be tried again. One that panics in the same way for the third time in a row may not:
// it would do nothing but that.
func (p *panics) again(err error) bool {
	var e *PanicError
	if !errors.As(err, &e) {
		*p = panics{}
		return true
	}
	if e.Error() != p.last {
		*p = panics{last: e.Error()}
	}
	p.n++
	return p.n < maxPanics
}

// disable reports that a job is given up, and waits until the server stops: nobody else shall try the same.
func (s *Stream) disable(ctx context.Context, name string, err error) {
	var e *PanicError
	errors.As(err, &e)
	s.log.WithFields(logrus.Fields{"job": name, "stack": e.Stack}).WithError(err).Error("a job has panicked three times in the same way and is switched off until the server starts anew; please report it")
	s.metrics.disabled.WithLabelValues(name).Set(1)
	<-ctx.Done()
}

// Keep runs a job of the server until ctx ends. When it panics it is run again after a pause, and switched off when it does so in the same way three
// times in a row. Other errors are returned.
func (s *Stream) Keep(ctx context.Context, name string, run func(context.Context) error) error {
	var seen panics
	for pause := retryFirst; ; pause = min(2*pause, retryLast) {
		began := time.Now()
		err := Guard(func() error { return run(ctx) })
		var e *PanicError
		if !errors.As(err, &e) {
			return err
		}
		if time.Since(began) > time.Hour {
			seen, pause = panics{}, retryFirst // it has worked in between
		}
		s.metrics.panics.WithLabelValues(name).Inc()
		if !seen.again(err) {
			s.disable(ctx, name, err)
			return nil
		}
		s.log.WithFields(logrus.Fields{"job": name, "stack": e.Stack}).WithError(err).Error("a job has panicked; running it again")
		if !Pause(ctx, pause) {
			return nil
		}
	}
}
