// Package chaos breaks a running broker in every way it can think of and keeps the books from outside: every event that a
// producer was told is accepted must end, for every Trigger that it matches, at the subscriber, at the dead letter sink or
// parked.
//
// The programs run as separate processes around a real nats-server. Producers and subscribers belong to the test and
// write down what they sent and got; the product is not asked. What a subscriber does with an event follows from the
// seed, the Trigger and the event's id, so it is known beforehand where each event must end.
package chaos

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// The environment variables that size a run; `make chaos` passes them on.
const (
	envSeed     = "CHAOS_SEED"     // of everything that is left to chance; default 1
	envEvents   = "CHAOS_EVENTS"   // to be accepted; default 30000
	envKills    = "CHAOS_KILLS"    // of processes; as many milder faults come in between; default 20
	envDuration = "CHAOS_DURATION" // over which events and faults are spread; default 90s
	envMode     = "CHAOS_MODE"     // r1, one NATS server, or r3, a cluster of three; default r1
	envReport   = "CHAOS_REPORT"   // folder for the report and the ledger; default: printed, and forgotten
)

// config sizes a run.
type config struct {
	Seed     uint64
	Events   int
	Kills    int
	Duration time.Duration
	// Nodes is the number of NATS servers and of replicas of each stream.
	Nodes int
	// Filters and Ingresses are the replicas of the two programs.
	Filters, Ingresses int
	// SettleWithin bounds the time after the last fault until every event has met its fate.
	SettleWithin time.Duration
	// Report is the folder of the report and the ledger; empty if they are not kept.
	Report string `json:"-"`
}

// short is the run that is part of `go test`.
func short() config {
	return config{
		Seed: 1, Events: 5_000, Kills: 4, Duration: 16 * time.Second, Nodes: 1, Filters: 2, Ingresses: 1,
		SettleWithin: 3 * time.Minute, // time for two looks at what a killed server has left behind
	}
}

// fromEnvironment is the run that the environment asks for; asked is false if it asks for none.
func fromEnvironment(t testing.TB) (c config, asked bool) {
	t.Helper()
	for _, name := range []string{envSeed, envEvents, envKills, envDuration, envMode, envReport} {
		asked = asked || os.Getenv(name) != ""
	}
	c = short()
	c.Seed = uint64(number(t, envSeed, 1))
	c.Events = number(t, envEvents, 30_000)
	c.Kills = number(t, envKills, 20)
	c.SettleWithin = 5 * time.Minute
	c.Report = os.Getenv(envReport)
	var err error
	if c.Duration, err = time.ParseDuration(cmp.Or(os.Getenv(envDuration), "90s")); err != nil {
		t.Fatalf("%s: %v", envDuration, err)
	}
	switch mode := cmp.Or(os.Getenv(envMode), "r1"); mode {
	case "r1":
	case "r3":
		c.Nodes = 3
	default:
		t.Fatalf("%s=%s: want r1 or r3", envMode, mode)
	}
	return c, asked
}

func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: want a number", name, os.Getenv(name))
	}
	return n
}

// ledgerDir is the folder of the ledger, which is new.
func (c config) ledgerDir(t testing.TB) string {
	t.Helper()
	if c.Report == "" {
		return t.TempDir()
	}
	dir := filepath.Join(c.Report, time.Now().Format("ledger-20060102-150405"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// rerun is the command that repeats the run.
func (c config) rerun() string {
	mode := "r1"
	if c.Nodes > 1 {
		mode = "r3"
	}
	return fmt.Sprintf("make chaos %s=%d %s=%d %s=%d %s=%s %s=%s",
		envSeed, c.Seed, envEvents, c.Events, envKills, c.Kills, envDuration, c.Duration, envMode, mode)
}
