package chaos

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"millrace.dev/test/harness"
)

// process is a program that is killed and started again under the same arguments. Its methods are not safe for
// concurrent use.
type process struct {
	name, path string
	args       []string
	ready      string // URL that answers 200 when the process is
	log        *os.File
	cmd        *exec.Cmd
	done       chan struct{}
}

// newProcess starts a program; its output is shown if the test fails.
func newProcess(t testing.TB, p *process) *process {
	t.Helper()
	var err error
	if p.log, err = os.CreateTemp(t.TempDir(), p.name+"-*.log"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of the output of %s:\n%s", p.name, p.tail())
		}
		_ = p.log.Close()
	})
	p.start(t)
	return p
}

func (p *process) start(t testing.TB) {
	t.Helper()
	//nolint:noctx // the process is ended by kill
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Errorf("start %s: %v", p.name, err)
		p.cmd = nil
		return
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
}

// kill ends the process as a crash does; also one that is paused.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	p.cmd = nil
}

func (p *process) pause() { p.signal(syscall.SIGSTOP) }

func (p *process) resume() { p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// ended reports whether the process ended by itself.
func (p *process) ended() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) waitReady(t testing.TB) {
	t.Helper()
	harness.Eventually(t, p.name+" is ready", func() error {
		if p.ended() {
			t.Fatalf("%s ended before it was ready:\n%s", p.name, p.tail())
		}
		return harness.Healthy(t.Context(), p.ready)
	})
}

// tail is the end of the output, without the attempts that failed because the test wanted them to.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "delivery attempt failed") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
