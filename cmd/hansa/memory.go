package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
)

// memoryShare is how much of the memory that the system grants may be used before the collector works harder.
const memoryShare = 0.8

// limitMemory makes the garbage collector keep below what the container may use, where nobody has said otherwise by GOMEMLIMIT:
// without a limit a burst of requests lets the heap grow until the kernel ends the process.
func limitMemory(log *logrus.Entry) {
	if _, said := os.LookupEnv("GOMEMLIMIT"); said {
		return
	}
	if limit := memoryCeiling(os.ReadFile); limit > 0 {
		debug.SetMemoryLimit(limit)
		log.WithField("pkg", "hansa").Infof("memory is limited to %d MiB", limit>>20)
	}
}

// memoryCeiling is memoryShare of what the control group of this process may use, 0 where there is no limit.
func memoryCeiling(read func(string) ([]byte, error)) int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := read(file)
		if err != nil {
			continue // the other version of control groups, or another system
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/2 { // the older version writes a huge number for none
			return int64(float64(n) * memoryShare)
		}
	}
	return 0
}
