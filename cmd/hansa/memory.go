package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

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

const (
	// calmLook is how often it is looked whether memory can be given back, calmBytes how much is allocated in that time at most while the
	// server has little to do, wasteBytes what is worth the work.
	calmLook   = 10 * time.Second
	calmBytes  = 32 << 20
	wasteBytes = 12 << 20
)

// returnMemory gives the system back what a burst of requests has left, when it is over: the collector alone keeps it for the next one.
func returnMemory(ctx context.Context) {
	tick := time.NewTicker(calmLook)
	defer tick.Stop()
	before, calm := readMemory(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := readMemory()
		was := calm
		if calm = now.allocated-before.allocated < calmBytes; calm && (!was || now.waste() > wasteBytes) {
			debug.FreeOSMemory()
		}
		before = now
	}
}

// memoryUse is what the runtime tells of the heap, in bytes: allocated since the start, in objects, in those that the last collection has
// left, and in what is neither used nor given back.
type memoryUse struct{ allocated, objects, live, free uint64 }

func readMemory() memoryUse {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return memoryUse{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}

// waste is what is free, and what the next collection will find of what was made since the last one.
func (m memoryUse) waste() uint64 { return m.objects - min(m.live, m.objects) + m.free }
