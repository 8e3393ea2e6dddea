package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"millrace.dev/internal/cli/sender"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// progressEvery is how often a terminal is told how far sending has come.
const progressEvery = 200 * time.Millisecond

// job is one run of the send command.
type job struct {
	flags   *sendFlags
	events  source
	sender  *sender.Sender
	summary *sender.Summary
	out     io.Writer
	errOut  io.Writer
	style   terminal.Style

	errMu sync.Mutex // guards errOut
}

func (j *job) run(ctx context.Context) error {
	if j.flags.dryRun {
		return j.dryRun(ctx)
	}
	start := time.Now()
	stopProgress := j.showProgress()
	j.sendAll(ctx)
	stopProgress()
	fmt.Fprint(j.errOut, j.summary.Report(time.Since(start)))
	if ctx.Err() != nil {
		return errors.New("interrupted before all events were sent")
	}
	if _, failed := j.summary.Counts(); failed > 0 {
		return silently(ExitFailure)
	}
	return nil
}

// sendAll posts the events, as many at a time and as fast as the flags say.
func (j *job) sendAll(ctx context.Context) {
	queue := make(chan *event.Event)
	var workers sync.WaitGroup
	for range j.flags.concurrency {
		workers.Go(func() {
			for e := range queue {
				j.summary.Add(j.sender.Send(ctx, e))
			}
		})
	}
	pace := rate.NewLimiter(j.limit(), 1)
	j.events(func(e *event.Event) bool {
		if pace.Wait(ctx) != nil {
			return false
		}
		select {
		case queue <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}, j.invalid)
	close(queue)
	workers.Wait()
}

func (j *job) limit() rate.Limit {
	if j.flags.rate == 0 {
		return rate.Inf
	}
	return rate.Limit(j.flags.rate)
}

// invalid reports an event that could not be read and says whether to go on.
func (j *job) invalid(err error) bool {
	j.summary.AddInvalid()
	j.errMu.Lock()
	defer j.errMu.Unlock()
	fmt.Fprintf(j.errOut, "%s %s\n", j.style.Bad("Error:"), terminal.Safe(err.Error()))
	return !j.flags.strict
}

// dryRun prints the requests.
func (j *job) dryRun(ctx context.Context) error {
	var failure error
	j.events(func(e *event.Event) bool {
		var req *http.Request
		if req, failure = j.sender.Request(ctx, e); failure == nil {
			failure = printRequest(j.out, req)
		}
		return failure == nil && ctx.Err() == nil
	}, j.invalid)
	if _, failed := j.summary.Counts(); failure == nil && failed > 0 {
		return silently(ExitFailure)
	}
	return failure
}

// printRequest writes a request as it goes over the wire, but for headers that say nothing about the event.
func printRequest(w io.Writer, req *http.Request) error {
	fmt.Fprintf(w, "POST %s\n", req.URL.Redacted())
	if err := req.Header.WriteSubset(headerLines{w}, map[string]bool{"User-Agent": true}); err != nil {
		return fmt.Errorf("print request: %w", err)
	}
	body, err := io.ReadAll(req.Body)
	if err == nil && len(body) > 0 {
		_, err = fmt.Fprintf(w, "\n%s\n", body)
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	if err != nil {
		return fmt.Errorf("print request: %w", err)
	}
	return nil
}

// headerLines turns the line ends of HTTP into those of a terminal.
type headerLines struct{ w io.Writer }

func (h headerLines) Write(p []byte) (int, error) {
	return h.WriteString(string(p))
}

// WriteString is what net/http writes headers with.
func (h headerLines) WriteString(s string) (int, error) {
	_, err := io.WriteString(h.w, strings.ReplaceAll(s, "\r\n", "\n"))
	return len(s), err
}

// showProgress keeps a line on the terminal up to date until the returned function is called. It writes nothing if
// standard error is no terminal.
func (j *job) showProgress() (stop func()) {
	if !terminal.Interactive(j.errOut) {
		return func() {}
	}
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				j.printProgress()
			case <-done:
				j.clearProgress()
				return
			}
		}
	})
	return func() { close(done); reporter.Wait() }
}

// clearLine is ECMA-48 for: to the first column and erase to the end.
const clearLine = "\r\x1b[K"

func (j *job) printProgress() {
	accepted, failed := j.summary.Counts()
	j.errMu.Lock()
	defer j.errMu.Unlock()
	fmt.Fprintf(j.errOut, "%s%d accepted, %d refused", clearLine, accepted, failed)
}

func (j *job) clearProgress() {
	j.errMu.Lock()
	defer j.errMu.Unlock()
	fmt.Fprint(j.errOut, clearLine)
}
