// Command bench measures Millrace as its users meet it: separate processes around a real nats-server, next to a baseline of
// the same run, with a ledger of every event.
//
//	go run ./test/bench [flags] [scenario...]
//
// Without scenarios it runs all of them; -h lists them.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

// mode says how long to measure.
type mode struct {
	rounds int           // slices of each kind
	slice  time.Duration // how long a slice lasts
	soak   time.Duration // 0: no soak
	settle time.Duration // how long a process is left alone before its idle memory is read
	many   int           // the number of Triggers where there are many
}

var modes = map[string]mode{
	"smoke": {rounds: 1, slice: 300 * time.Millisecond, settle: time.Second, many: 500},
	"quick": {rounds: 3, slice: 1100 * time.Millisecond, settle: 3 * time.Second, many: 10_000},
	"full":  {rounds: 7, slice: 4 * time.Second, settle: 10 * time.Second, many: 10_000, soak: 10 * time.Minute},
}

// scenario is a part of the benchmark that can be run by itself.
type scenario struct {
	name, what string
	run        func(*bench, context.Context) error
}

func scenarios() []scenario {
	return []scenario{
		{"ingest", "posting, in binary and structured mode, against the bare handler", (*bench).ingest},
		{"deliver", "end to end, one Trigger, a subscriber of 0 ms and one of 20 ms", (*bench).deliver},
		{"latency", "end to end at 1,000 events a second", (*bench).latency},
		{"fanout", "100 Triggers that all match", (*bench).fanOut},
		{"index", "10,000 Triggers of which one matches, against one Trigger", (*bench).index},
		{"celdata", "1,000 Triggers with CEL on data of which 1 % match", (*bench).celOnData},
		{"telemetry", "metrics on against off, and traces of 1 % of the events", (*bench).telemetry},
		{"idle", "memory of broker-filter with 1,000 Triggers", (*bench).idle},
		{"dev", "start and memory of millrace dev", (*bench).dev},
		{"durable", "three NATS servers, with and without sync_interval: always", (*bench).durable},
		{"journal", "end to end with a journal, and with metrics beside it, against the same without", (*bench).journal},
		{"archive", "end to end with an archive, against the same without one", (*bench).archive},
		{"replicas", "two ingresses and two filters of one Broker, against one of each", (*bench).replicas},
		{"soak", "memory at 2,000 events a second for ten minutes (in full mode, or for as long as -soak says)", (*bench).soak},
	}
}

// bench is one run.
type bench struct {
	mode
	bin      string   // folder of the programs
	bare     []string // command that runs the bare handler
	profiles string   // folder for profiles, or ""
	report   *report.Report
	started  time.Time
	scenario string // that runs now
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "bare" {
		exit(runBare(os.Args[2:]))
	}
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	name := fs.String("mode", "quick", "smoke, quick or full")
	out := fs.String("out", "", "folder in which benchmarks.md and benchmarks.json are written")
	profiles := fs.String("profiles", "", "folder in which a CPU profile of each process is written for each kind of slice")
	slice := fs.Duration("slice", 0, "how long a slice lasts, instead of the mode's")
	rounds := fs.Int("rounds", 0, "how many slices of each kind, instead of the mode's")
	soak := fs.Duration("soak", 0, "how long the soak lasts, instead of the mode's")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "Usage: bench [flags] [scenario...]")
		fs.PrintDefaults()
		for _, s := range scenarios() {
			fmt.Fprintf(fs.Output(), "  %-9s %s\n", s.name, s.what)
		}
	}
	_ = fs.Parse(os.Args[1:]) // exits on an error
	m, ok := modes[*name]
	if !ok {
		exit(fmt.Errorf("mode %q: want smoke, quick or full", *name))
	}
	if *slice > 0 {
		m.slice = *slice
	}
	if *rounds > 0 {
		m.rounds = *rounds
	}
	if *soak > 0 {
		m.soak = *soak
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	b := &bench{mode: m, profiles: *profiles, started: time.Now(), report: newReport(*name, os.Args[1:])}
	err := b.run(ctx, fs.Args(), *out)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (b *bench) run(ctx context.Context, names []string, out string) (err error) {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if b.bin, err = os.MkdirTemp("", "millrace-bench-programs-"); err != nil {
		return fmt.Errorf("make a folder for the programs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.bin)) }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	b.bare = []string{self, "bare"}
	if b.profiles != "" {
		if err := os.MkdirAll(b.profiles, 0o700); err != nil {
			return fmt.Errorf("make the folder for profiles: %w", err)
		}
	}
	b.say("building the programs")
	if err := rig.Build(ctx, b.bin); err != nil {
		return err
	}
	b.report.Versions = versions(b.bin)
	b.started = time.Now()
	var failed error
	for _, s := range chosen {
		b.scenario = s.name
		b.say("%s", s.what)
		if err := s.run(b, ctx); err != nil {
			b.say("FAILED: %v", err)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	b.report.Took = time.Since(b.started).Seconds()
	fmt.Printf("\n%s", b.report.Markdown())
	if failed != nil { // figures of a run that lost events are not kept
		return failed
	}
	return b.write(out)
}

func choose(names []string) ([]scenario, error) {
	all := scenarios()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; -h lists them", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// say tells what is going on.
func (b *bench) say(format string, args ...any) {
	fmt.Printf("%5.0fs %-9s %s\n", time.Since(b.started).Seconds(), b.scenario, fmt.Sprintf(format, args...))
}

func (b *bench) write(folder string) error {
	if folder == "" {
		return nil
	}
	text, err := b.report.JSON()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "benchmarks.md"), []byte(b.report.Markdown()), 0o644),
		os.WriteFile(filepath.Join(folder, "benchmarks.json"), text, 0o644))
}

func newReport(mode string, args []string) *report.Report {
	command := strings.Join(append([]string{"go run ./test/bench"}, args...), " ")
	return &report.Report{Date: time.Now(), Mode: mode, Command: command, Machine: machine()}
}

func machine() string {
	model, memory, kernel := "unknown processor", "", ""
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			model = cpus[0].ModelName
		}
		if m, err := fs.Meminfo(); err == nil && m.MemTotal != nil {
			memory = fmt.Sprintf(", %d GiB", *m.MemTotal>>20)
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = ", Linux " + string(bytes.TrimSpace(release))
	}
	return fmt.Sprintf("%d × %s%s%s", runtime.NumCPU(), model, memory, kernel)
}

// versions of what takes part: the toolchain, Millrace and NATS, as the programs in bin say.
func versions(bin string) string {
	text := runtime.Version()
	for _, program := range []string{"broker-ingress", "nats-server"} {
		out, err := exec.Command(filepath.Join(bin, program), "--version").Output() //nolint:noctx // prints a line
		if err == nil {
			text += ", " + string(bytes.TrimSpace(out))
		}
	}
	return text
}
