// Package rig runs the programs under measurement as separate processes on the loopback interface, and tells what
// processor time and memory they take.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// patience bounds every wait for a process.
const patience = 60 * time.Second

// Build compiles the programs into dir.
func Build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", dir+string(filepath.Separator),
		"millrace.dev/cmd/broker-ingress", "millrace.dev/cmd/broker-filter", "millrace.dev/cmd/millrace", "github.com/nats-io/nats-server/v2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// Process is a running program.
type Process struct {
	// Role groups processes in reports: nats, ingress, filter, bare or dev.
	Role string
	// Profiles is the URL of the program's CPU profile, if it has one.
	Profiles string

	cmd  *exec.Cmd
	out  tail
	done chan struct{}
}

// Start runs a program.
func Start(role, path string, args ...string) (*Process, error) {
	return startWith(nil, role, path, args...)
}

// startWith runs a program with more variables in its environment, as NAME=value.
func startWith(env []string, role, path string, args ...string) (*Process, error) {
	//nolint:noctx // Stop ends it
	p := &Process{Role: role, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Stop tells the process to end, kills it if it does not soon, and returns an error if it ended otherwise than asked.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself:\n%s", p.Role, p.out.String())
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code > 0 && p.Role != "nats" { // nats-server ends with 1 on a signal
			return fmt.Errorf("%s ended with code %d:\n%s", p.Role, code, p.out.String())
		}
		return nil
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop:\n%s", p.Role, p.out.String())
	}
}

// CPU is the processor time that the process has used, in user and system mode.
func (p *Process) CPU() (time.Duration, error) {
	stat, err := p.stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

// RSS is the memory that the process has in RAM, in bytes.
func (p *Process) RSS() (int, error) {
	stat, err := p.stat()
	return stat.ResidentMemory(), err
}

func (p *Process) stat() (procfs.ProcStat, error) {
	proc, err := procfs.NewProc(p.cmd.Process.Pid)
	if err != nil {
		return procfs.ProcStat{}, fmt.Errorf("find %s in /proc: %w", p.Role, err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return procfs.ProcStat{}, fmt.Errorf("read the usage of %s: %w", p.Role, err)
	}
	return stat, nil
}

// waitReady waits until the URL answers 200, or the process ends.
func (p *Process) waitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := Get(ctx, url, io.Discard)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended:\n%s", p.Role, p.out.String())
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready: %w\n%s", p.Role, err, p.out.String())
		}
	}
}

// SaveProfile takes a CPU profile of the given time and writes it into the file.
func (p *Process) SaveProfile(ctx context.Context, d time.Duration, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("save profile: %w", err)
	}
	err = Get(ctx, fmt.Sprintf("%s?seconds=%d", p.Profiles, max(1, int(d.Seconds()))), f)
	return errors.Join(err, f.Close())
}

// Get writes what the URL answers; any status but 200 is an error.
func Get(ctx context.Context, url string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("get %s: status %d: %s", url, resp.StatusCode, body)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	return nil
}

// FreeAddress returns an address of the loopback interface whose port was free a moment ago.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // does not block
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tail keeps the end of what a process prints.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > 1<<20 {
		t.buf.Reset()
	}
	return t.buf.Write(p)
}

// String returns the last 4 KB.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf.Bytes()
	return string(b[max(0, len(b)-4<<10):])
}
