//go:build !linux

package main

import (
	"context"

	"github.com/sirupsen/logrus"

	"hansa/config"
)

// relaxTimers does something on Linux only.
func relaxTimers(context.Context, *config.Config, *logrus.Entry) {}
