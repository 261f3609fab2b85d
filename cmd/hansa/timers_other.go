//go:build !linux

package main

import (
	"context"

	"github.com/sirupsen/logrus"

	"hansa/config"
)

// ownProcess is the key of what tells, in a context, that the process is this program's own.
type ownProcess struct{}

// relaxTimers does something on Linux only.
func relaxTimers(context.Context, *config.Config, *logrus.Entry) {}
