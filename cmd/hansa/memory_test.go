package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

// The heap stays below what the container may use.
func TestO499_MemoryCeiling(t *testing.T) {
	t.Parallel()
	const two, one = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
	for what, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"limit":              {map[string]string{two: "1073741824\n"}, 858993459},
		"older limit":        {map[string]string{one: "536870912\n"}, 429496729},
		"no limit":           {map[string]string{two: "max\n"}, 0},
		"older without":      {map[string]string{one: "9223372036854771712\n"}, 0},
		"no control groups":  {nil, 0},
		"something else":     {map[string]string{two: "x"}, 0},
		"nothing is allowed": {map[string]string{two: "0"}, 0},
	} {
		got := memoryCeiling(func(name string) ([]byte, error) {
			if text, ok := c.files[name]; ok {
				return []byte(text), nil
			}
			return nil, os.ErrNotExist
		})
		if got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

// What a burst leaves shows as waste, and can be given back.
func TestReadMemory(t *testing.T) {
	before := readMemory()
	kept := make([][]byte, 0, 64)
	for range cap(kept) {
		kept = append(kept, make([]byte, 1<<20))
	}
	if busy := readMemory(); busy.allocated-before.allocated < calmBytes {
		t.Errorf("64 MiB make no burst: %+v, %+v", before, busy)
	}
	runtime.KeepAlive(kept)
	kept = nil
	runtime.GC()
	if now := readMemory(); now.waste() < wasteBytes {
		t.Errorf("64 MiB of garbage are no waste: %+v", now)
	}
	debug.FreeOSMemory()
	if now := readMemory(); now.waste() > wasteBytes {
		t.Errorf("there is waste right after it was given back: %+v", now)
	}
}
