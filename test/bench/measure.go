package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"millrace.dev/test/bench/ledger"
	"millrace.dev/test/bench/load"
	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
	"millrace.dev/test/bench/sink"
)

const (
	// defaultWindow is how many events are under way in a closed loop end to end: enough to keep 100 deliveries at a time
	// going, few enough to wait in memory.
	defaultWindow = 256
	drainPatience = 60 * time.Second
)

// target is something to load: where events go, who is owed them, and how to make sure that they arrived.
type target struct {
	name    string
	rig     *rig.Rig
	hosts   []string
	request load.Request
	book    *ledger.Ledger
	window  int
	rate    int
	// settle, if set, checks after each slice that so many events arrived.
	settle func(ctx context.Context, events int64) error
	// behind is how long after the last event there may be work left for the events of a slice, which counts as theirs.
	behind time.Duration
	sink   *sink.Sink

	slices     []slice
	cpuToFirst []float64 // processor time an event to that of another target that was loaded at the same time
}

// slice is what was measured of a target without a break.
type slice struct {
	rate    float64 // events a second; end to end those that arrived, else those accepted
	events  int64
	each    float64            // deliveries an event
	cpu     map[string]float64 // µs an event, by role
	latency *hdrhistogram.Histogram
	others  float64 // percent of the machine that programs had which are no part of this
}

// brokerCPU is the processor time an event of all broker processes, in µs.
func (s slice) brokerCPU() (us float64) {
	for _, each := range s.cpu {
		us += each
	}
	return us
}

// newTarget returns a target whose events so many subscribers are owed, which answer after the delay.
func newTarget(name string, subscribers int, delay time.Duration) (*target, error) {
	t := &target{name: name, book: ledger.New(subscribers), window: defaultWindow, request: load.Binary("/default/"+name, eventType, payload)}
	if subscribers == 0 {
		return t, nil
	}
	var err error
	t.sink, err = sink.Listen(t.book, delay)
	return t, err
}

// on sets the rig that serves the target.
func (t *target) on(r *rig.Rig) { t.rig, t.hosts = r, r.Hosts }

// measure loads the targets in turns and then closes their books.
func (b *bench) measure(ctx context.Context, targets ...*target) error {
	for _, t := range targets {
		if _, err := b.slice(ctx, t, max(b.mode.slice/4, 250*time.Millisecond), false); err != nil {
			return fmt.Errorf("warm up %s: %w", t.name, err)
		}
	}
	for round := range b.rounds {
		order := slices.Clone(targets)
		if round%2 == 1 { // so that a machine that gets slower favors nobody
			slices.Reverse(order)
		}
		for _, t := range order {
			s, err := b.slice(ctx, t, b.mode.slice, round == 0)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			t.slices = append(t.slices, s)
			b.report.Others = append(b.report.Others, s.others)
			b.say("%d/%d %-13s %s", round+1, b.rounds, t.name, s)
		}
	}
	var errs error
	for _, t := range targets {
		errs = errors.Join(errs, b.close(t))
	}
	return errs
}

// String is a line for the terminal.
func (s slice) String() string {
	text := fmt.Sprintf("%7.0f/s  p50 %6.2f ms  p99 %6.2f ms  CPU %4.0f µs:", s.rate, s.quantile(50), s.quantile(99), s.brokerCPU())
	for _, role := range []string{"bare", "ingress", "nats", "filter"} {
		if us := s.cpu[role]; us > 0 {
			text += fmt.Sprintf(" %s %.0f", role, us)
		}
	}
	if s.others >= 5 {
		text += fmt.Sprintf("  (others had %.0f %% of the machine)", s.others)
	}
	return text
}

// quantile of the latency in ms.
func (s slice) quantile(percent float64) float64 {
	return float64(s.latency.ValueAtQuantile(percent)) / 1000
}

// slice loads the target for a while and waits until everything has arrived.
func (b *bench) slice(ctx context.Context, t *target, d time.Duration, profile bool) (slice, error) {
	t.book.Begin(t.window)
	cpu, err := t.rig.CPU()
	if err != nil {
		return slice{}, err
	}
	before, err := t.rig.Load()
	if err != nil {
		return slice{}, err
	}
	sent, complete, deliveries := t.book.Sent(), t.book.Complete(), t.book.Deliveries()
	var profiling sync.WaitGroup
	if profile && b.profiles != "" {
		b.saveProfiles(ctx, &profiling, t, d)
	}
	result, err := load.Run(ctx, load.Options{Hosts: t.hosts, Request: t.request, Duration: d, Rate: t.rate, Book: t.book})
	arrived := t.book.Complete() - complete
	profiling.Wait()
	if err != nil {
		return slice{}, err
	}
	if err := t.book.Await(drainPatience); err != nil {
		return slice{}, err
	}
	time.Sleep(t.behind)
	s := slice{events: int64(t.book.Sent() - sent), latency: result.Latency, cpu: map[string]float64{}}
	after, err := t.rig.CPU()
	if err != nil {
		return slice{}, err
	}
	for role, used := range after {
		s.cpu[role] = float64((used - cpu[role]).Microseconds()) / float64(s.events)
	}
	machine, err := t.rig.Load()
	if err != nil {
		return slice{}, err
	}
	s.others = machine.Others(before)
	s.rate = float64(s.events) / result.Elapsed.Seconds()
	if t.sink != nil {
		s.rate = float64(arrived) / result.Elapsed.Seconds()
		s.each = float64(t.book.Deliveries()-deliveries) / float64(s.events)
		s.latency = t.book.Latency()
	}
	if t.settle != nil {
		err = t.settle(ctx, s.events)
	}
	return s, err
}

func (b *bench) saveProfiles(ctx context.Context, profiling *sync.WaitGroup, t *target, d time.Duration) {
	for i, p := range t.rig.Processes {
		file := filepath.Join(b.profiles, fmt.Sprintf("%s-%s-%s%d.pprof", b.scenario, t.name, p.Role, i))
		profiling.Go(func() {
			if err := p.SaveProfile(ctx, d, file); err != nil {
				b.say("no profile: %v", err)
			}
		})
	}
}

// close fails if an event of the target was lost, delivered twice, or delivered to a subscriber that is not owed it.
func (b *bench) close(t *target) error {
	if t.sink == nil {
		b.report.Accounts = append(b.report.Accounts, fmt.Sprintf("%s, %s: %d events stored", b.scenario, t.name, t.book.Sent()))
		return nil
	}
	time.Sleep(500 * time.Millisecond) // what is delivered too often has its chance to show
	a := t.book.Account()
	line := fmt.Sprintf("%s, %s: %d events, %d deliveries owed, %d lost, %d made again, %d astray", b.scenario, t.name, t.book.Sent(), a.Owed, a.Lost, a.Duplicate, a.Strays)
	b.report.Accounts = append(b.report.Accounts, line)
	return errors.Join(a.Err(), t.sink.Close())
}

// add reports a value of each slice of the target.
func (b *bench) add(t *target, name, unit string, goal *report.Goal, value func(slice) float64) {
	samples := make([]float64, len(t.slices))
	for i, s := range t.slices {
		samples[i] = value(s)
	}
	b.report.Add(report.Figure{Scenario: b.scenario, Name: name, Unit: unit, Samples: samples, Goal: goal})
}

// addRate reports the rates of the target, and its processor time.
func (b *bench) addRate(t *target, name string, rate, cpu *report.Goal) {
	b.add(t, name, "/s", rate, func(s slice) float64 { return s.rate })
	b.add(t, name+", processor time an event", "µs", cpu, slice.brokerCPU)
}

// addRatio reports how the rates of two targets compare, slice by slice.
func (b *bench) addRatio(t, to *target, name string, goal *report.Goal) {
	b.addRatioOf(t, to, name, goal, func(s slice) float64 { return s.rate })
}

// addRatioOf reports how a value of two targets compares, slice by slice.
func (b *bench) addRatioOf(t, to *target, name string, goal *report.Goal, value func(slice) float64) {
	samples := make([]float64, len(t.slices))
	for i, s := range t.slices {
		samples[i] = value(s) / value(to.slices[i])
	}
	b.report.Add(report.Figure{Scenario: b.scenario, Name: name, Unit: "×", Samples: samples, Goal: goal})
}

// start starts a rig with the tool's own options.
func (b *bench) start(ctx context.Context, o rig.Options) (*rig.Rig, error) {
	o.Bin, o.Bare, o.Profiles = b.bin, b.bare, b.profiles != ""
	return rig.New(ctx, o)
}
