// Package harness runs Millrace for tests: in this process, or as separate programs around a real nats-server.
package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace.dev/internal/app"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/stream"
)

// Patience bounds every wait.
const Patience = 60 * time.Second

// Dev is dev mode running in this process.
type Dev struct {
	// URL is what Brokers' paths follow, Admin that of the admin port, Out what dev mode printed.
	URL, Admin string
	Out        *Output

	stop context.CancelFunc
	done chan error
}

// StartDev runs dev mode on the manifests with its data in the given folder, and returns when it is ready. It is stopped
// at the end of the test.
func StartDev(t testing.TB, data string, manifests ...string) *Dev {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, 1)
	d := &Dev{Out: &Output{}, stop: cancel, done: make(chan error, 1)}
	go func() {
		d.done <- runDev(ctx, data, app.DevOptions{
			Options: app.Options{
				Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Manifests: manifests, DrainTimeout: 20 * time.Second,
				Logger: slog.New(slog.NewTextHandler(d.Out, &slog.HandlerOptions{Level: slog.LevelError})),
			},
			Out:     d.Out,
			OnReady: func(_ context.Context, url string) { ready <- url },
		})
	}()
	t.Cleanup(func() { d.Stop(t) })
	select {
	case d.URL = <-ready:
	case err := <-d.done:
		d.done <- err
		t.Fatalf("dev mode ended before it was ready: %v\n%s", err, d.Out)
	case <-time.After(Patience):
		t.Fatalf("dev mode did not become ready:\n%s", d.Out)
	}
	if admin := regexp.MustCompile(`Admin:\s+(http://\S+)`).FindStringSubmatch(d.Out.String()); admin != nil {
		d.Admin = admin[1]
	}
	return d
}

// Stop ends dev mode as a signal would and waits until it has finished. It may be called twice.
func (d *Dev) Stop(t testing.TB) {
	t.Helper()
	d.stop()
	select {
	case err := <-d.done:
		d.done <- nil
		if err != nil {
			t.Errorf("dev mode ended with %v", err)
		}
	case <-time.After(Patience):
		t.Error("dev mode did not stop")
	}
}

// Output collects what a process prints. It is safe for concurrent use.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String returns all output so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Build compiles the given packages into a folder of the test and returns it.
func Build(t testing.TB, packages ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, out)
	}
	return dir
}

// Process is a program that a test started.
type Process struct {
	Name string
	Out  *Output
	cmd  *exec.Cmd
	done chan struct{}
}

// Start runs a program. It is killed at the end of the test if it still runs.
func Start(t testing.TB, path string, args ...string) *Process {
	t.Helper()
	//nolint:noctx // the process outlives any one context: it is stopped by Stop, Kill or the test's end
	p := &Process{Name: filepath.Base(path), Out: &Output{}, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.Out, p.Out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", p.Name, tail(p.Out.String(), 4000))
		}
	})
	return p
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Stop asks the process to end and waits until it has; it must end with exit code 0.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with exit code %d:\n%s", p.Name, code, tail(p.Out.String(), 4000))
		}
	case <-time.After(Patience):
		t.Errorf("%s did not stop", p.Name)
	}
}

// Signal sends the process a signal.
func (p *Process) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// FreePort returns a port that nothing listens on and that no other test of this machine is given until t ends: programs
// that are killed and started again leave theirs for a while. It is none that systems give to outgoing connections, of
// which the other tests make many.
func FreePort(t testing.TB) int {
	t.Helper()
	const lowest, ports = 15_000, 15_000
	dir := filepath.Join(os.TempDir(), "millrace-test-ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	for range 1000 {
		port := lowest + rand.IntN(ports)
		claim, err := claimFile(filepath.Join(dir, strconv.Itoa(port)))
		if err != nil {
			continue // another test has it
		}
		l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			claim.Close()
			continue
		}
		l.Close()
		t.Cleanup(func() { claim.Close() })
		return port
	}
	t.Fatal("found no free port")
	return 0
}

// claimFile locks a file, which it makes if need be, until it is closed or this process ends.
func claimFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// WaitReady waits until url answers 200.
func WaitReady(t testing.TB, url string) {
	t.Helper()
	Eventually(t, url+" answers 200", func() error { return Healthy(t.Context(), url) })
}

// Healthy returns nil if url answers 200.
func Healthy(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return nil
}

// Eventually waits until ok returns nil.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	err := errors.New("not tried")
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("waited in vain until %s: %v", what, err)
}

// Reach waits until count is at least want. It gives up when count has not grown for as long as Patience, so that what is large may take
// its time and what stands still does not.
func Reach(t testing.TB, what string, want int, count func() int) {
	t.Helper()
	ReachPatiently(t, Patience, what, want, count)
}

// ReachPatiently is Reach with another patience.
func ReachPatiently(t testing.TB, patience time.Duration, what string, want int, count func() int) {
	t.Helper()
	best, grew := -1, time.Now()
	for ; time.Since(grew) < patience; time.Sleep(10 * time.Millisecond) {
		n := count()
		if n >= want {
			return
		}
		if n > best {
			best, grew = n, time.Now()
		}
	}
	t.Fatalf("waited in vain until %s: there are %d of %d, and no more came for %v", what, best, want, patience)
}

// Ledger is a subscriber that records what it received: for each path, how often it got each event id.
type Ledger struct {
	*httptest.Server
	mu    sync.Mutex
	got   map[string]map[string]int
	total int
	last  time.Time
}

// NewLedger returns a running Ledger. Its URL followed by a path is a subscriber.
func NewLedger(t testing.TB) *Ledger {
	l := &Ledger{got: map[string]map[string]int{}, last: time.Now()}
	l.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.got[r.URL.Path] == nil {
			l.got[r.URL.Path] = map[string]int{}
		}
		l.got[r.URL.Path][r.Header.Get("ce-id")]++
		l.total++
		l.last = time.Now()
	}))
	t.Cleanup(l.Close)
	return l
}

// Path returns how often each id came to the path.
func (l *Ledger) Path(path string) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := make(map[string]int, len(l.got[path]))
	for id, n := range l.got[path] {
		got[id] = n
	}
	return got
}

// Total is the number of requests received.
func (l *Ledger) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// WaitQuiet waits until at least want requests came, and then until none came for the given time: what is delivered too
// often has its chance to show.
func (l *Ledger) WaitQuiet(t testing.TB, want int, quiet time.Duration) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%d requests came and then none for %s", want, quiet), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.total < want || time.Since(l.last) < quiet {
			return fmt.Errorf("%d requests, the last %s ago", l.total, time.Since(l.last).Round(time.Millisecond))
		}
		return nil
	})
}

// Post sends a body and returns the status code and the answer.
func Post(t testing.TB, url, contentType string, body []byte, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// WriteFile writes a file of the test.
func WriteFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Lines returns the lines of a text.
func Lines(r io.Reader) ([][]byte, error) {
	var lines [][]byte
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		lines = append(lines, bytes.Clone(s.Bytes()))
	}
	return lines, s.Err()
}

// TryDev runs dev mode for a moment and returns the error it ends with.
func TryDev(t testing.TB, data string, manifests ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return runDev(ctx, data, app.DevOptions{
		Options: app.Options{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Manifests: manifests, Logger: slog.New(slog.DiscardHandler)},
		Out:     io.Discard,
	})
}

// runDev is what `millrace dev` does once its flags are parsed.
func runDev(ctx context.Context, data string, o app.DevOptions) error {
	// Stop ends it.
	store, err := devserver.Start(devserver.Options{Dir: data, Bounded: true, Logger: o.Logger})
	if err != nil {
		return err
	}
	defer store.Stop()
	o.NATS = stream.ConnOptions{InProcess: store}
	return app.RunDev(ctx, o)
}
