package main

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte("4242 (a) b (c) S 1 4242 4242 0 -1 4194560 1000 0 0 0 150 25 7 8 20 0 9 0 100 1 2 3"))
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("parseStat = %v, %v, want %v", got, err, want)
	}
	for _, line := range []string{"", "1 (x) S 1", "1 (x) S 1 1 1 0 -1 1 1 0 0 0 user system 0"} {
		if got, err := parseStat([]byte(line)); err == nil {
			t.Errorf("parseStat(%q) = %v", line, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	t.Parallel()
	got, err := parseStatus("Name:\tweir\nVmRSS:\t   51200 kB\nThreads:\t9\n")
	if err != nil || got != 51200<<10 {
		t.Errorf("parseStatus = %d, %v", got, err)
	}
	if got, err := parseStatus("Name:\tfalse\nState:\tZ (zombie)\n"); got != 0 || err != nil {
		t.Errorf("parseStatus of a zombie = %d, %v", got, err)
	}
	if got, err := parseStatus("Name:\tweir\n"); err == nil {
		t.Errorf("parseStatus without VmRSS = %d", got)
	}
}

func TestOwnProcess(t *testing.T) {
	t.Parallel()
	if pids := tree(os.Getpid()); len(pids) == 0 || pids[0] != os.Getpid() {
		t.Errorf("tree = %v", pids)
	}
	memory, err := residentBytes(os.Getpid())
	if err != nil || memory < 1<<20 {
		t.Errorf("residentBytes = %d, %v", memory, err)
	}
	if _, err := cpuTime(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestStartedProcessThatEndsIsReported(t *testing.T) {
	t.Parallel()
	_, err := startTarget(t.Context(), "false", "127.0.0.1:1", "/", "false")
	if err == nil {
		t.Error("no error")
	}
}
