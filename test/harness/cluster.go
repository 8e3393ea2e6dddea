package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace.dev/internal/objects"
	"millrace.dev/pkg/stream"
)

// Programs are the programs of a cluster, built once for all tests of a package. They are safe for concurrent use.
type Programs struct {
	once sync.Once
	dir  string
	err  error
}

// Dir builds the programs if that was not done yet and returns the folder that they are in.
func (p *Programs) Dir(t testing.TB) string {
	t.Helper()
	p.once.Do(func() {
		if p.dir, p.err = os.MkdirTemp("", "millrace-programs-"); p.err != nil { //nolint:usetesting // outlives the test
			return
		}
		//nolint:noctx // what is built serves other tests too
		cmd := exec.Command("go", "build", "-o", p.dir+string(filepath.Separator),
			"millrace.dev/cmd/broker-ingress", "millrace.dev/cmd/broker-filter", "millrace.dev/cmd/broker-source",
			"github.com/nats-io/nats-server/v2")
		if out, err := cmd.CombinedOutput(); err != nil {
			p.err = fmt.Errorf("build the programs: %w\n%s", err, out)
		}
	})
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.dir
}

// Remove deletes what was built. It belongs into TestMain.
func (p *Programs) Remove() {
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

// Cluster is Millrace as separate processes around a real nats-server, all on this machine.
type Cluster struct {
	// NATS is the store, Ingress accepts events, Filters deliver them.
	NATS    *Process
	Ingress *Server
	Filters []*Server

	// Manifests is the file or folder that is served.
	Manifests string
	// NATSFlags and Flags, if set, are further flags of nats-server and of the ingress and the filters; they win over the
	// harness's own.
	NATSFlags, Flags []string

	bin, dir         string
	natsPort, listen int
}

// Server is a process with an admin port, at the URL Admin.
type Server struct {
	*Process
	Admin string
}

// NewCluster returns a Cluster that serves the manifests, with nothing started yet. bin is the folder of the programs.
func NewCluster(t testing.TB, bin, manifests string) *Cluster {
	t.Helper()
	return &Cluster{bin: bin, dir: t.TempDir(), Manifests: manifests, natsPort: FreePort(t), listen: FreePort(t)}
}

// StartAll starts NATS, the ingress and the given number of filters, and waits until they are ready.
func (c *Cluster) StartAll(t testing.TB, filters int) {
	t.Helper()
	c.StartNATS(t)
	c.StartIngress(t)
	for range filters {
		c.StartFilter(t)
	}
	c.WaitReady(t)
}

// WaitReady waits until the ingress and all filters say that they are ready.
func (c *Cluster) WaitReady(t testing.TB) {
	t.Helper()
	for _, s := range append([]*Server{c.Ingress}, c.Filters...) {
		WaitReady(t, s.Admin+"/readyz")
	}
}

// StartNATS starts the store, at the same port and with the same data each time.
func (c *Cluster) StartNATS(t testing.TB) {
	t.Helper()
	args := []string{"-js", "-a", "127.0.0.1", "-p", strconv.Itoa(c.natsPort), "-sd", filepath.Join(c.dir, "nats")}
	c.NATS = Start(t, filepath.Join(c.bin, "nats-server"), append(args, c.NATSFlags...)...)
}

// SuperviseNATS does to the store what a kubelet does with a liveness probe: url is asked twice a second, and after three
// failures in a row the store is told to end, killed if it does not, and started again. Nobody else may start or kill the
// store until stop has been called, which returns how often that was done.
func (c *Cluster) SuperviseNATS(t testing.TB, url string) (stop func() (restarts int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	restarts, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for failures := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if failures++; healthy(ctx, url) {
				failures = 0
			}
			if failures >= 3 && ctx.Err() == nil {
				failures = 0
				restarts++
				c.NATS.end()
				c.StartNATS(t)
			}
		}
	}()
	stop = func() int {
		cancel()
		<-done
		return restarts
	}
	t.Cleanup(func() { stop() })
	return stop
}

func healthy(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return Healthy(ctx, url) == nil
}

// end asks the process to end and kills it if it takes too long.
func (p *Process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.Kill()
	}
}

// StartIngress starts the ingress, at the same port each time, and does not wait for it.
func (c *Cluster) StartIngress(t testing.TB) {
	t.Helper()
	c.Ingress = c.start(t, "broker-ingress", "--listen", c.address(c.listen))
}

// StartFilter starts one more filter and does not wait for it.
func (c *Cluster) StartFilter(t testing.TB) *Server {
	t.Helper()
	s := c.start(t, "broker-filter", "--allow-loopback")
	c.Filters = append(c.Filters, s)
	return s
}

// StartSource starts one more process that runs sources and does not wait for it.
func (c *Cluster) StartSource(t testing.TB) *Server {
	t.Helper()
	return c.start(t, "broker-source", "--allow-loopback", "--log-level", "info")
}

// BrokerNames returns the names in the store of a Broker of the namespace default, as read from manifests.
func BrokerNames(t testing.TB, manifests, name string) *stream.Names {
	t.Helper()
	set, err := objects.Load([]string{manifests})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range set.Brokers {
		if b.Name == name {
			return stream.NewNames(b.Namespace, b.Name, string(b.UID))
		}
	}
	t.Fatalf("there is no Broker %s in %s", name, manifests)
	return nil
}

func (c *Cluster) start(t testing.TB, program string, args ...string) *Server {
	t.Helper()
	admin := c.address(FreePort(t))
	own := []string{"-f", c.Manifests, "--nats-url", c.NATSURL(), "--admin", admin, "--log-level", "error"}
	args = slices.Concat(own, args, c.Flags)
	return &Server{Process: Start(t, filepath.Join(c.bin, program), args...), Admin: "http://" + admin}
}

func (c *Cluster) address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// NATSAddress is the host and port of the store.
func (c *Cluster) NATSAddress() string { return c.address(c.natsPort) }

// NATSURL is the address of the store as NATS clients write it.
func (c *Cluster) NATSURL() string { return "nats://" + c.NATSAddress() }

// URL is the address of the Broker of the given name in the namespace default.
func (c *Cluster) URL(broker string) string {
	return "http://" + c.address(c.listen) + "/default/" + broker
}

// RSS is the memory that the process has in RAM, in bytes. It skips the test where there is no /proc.
func (p *Process) RSS(t testing.TB) int64 {
	t.Helper()
	for line := range strings.Lines(p.proc(t, "status")) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kB, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kB << 10
		}
	}
	t.Fatalf("%s has no memory", p.Name)
	return 0
}

// CPU is the processor time that the process has used. It skips the test where there is no /proc.
func (p *Process) CPU(t testing.TB) time.Duration {
	t.Helper()
	const utime, stime = 11, 12 // fields after the program's name in parentheses
	stat := p.proc(t, "stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, i := range []int{utime, stime} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 on every Linux that Go runs on
}

// Freeze has the process stand still until it gets SIGCONT. It returns when no thread of it runs any more.
func (p *Process) Freeze(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGSTOP)
	Eventually(t, p.Name+" stands still", func() error {
		if stat := p.proc(t, "stat"); !strings.Contains(stat, ") T ") {
			return fmt.Errorf("stat is %s", stat)
		}
		return nil
	})
}

func (p *Process) proc(t testing.TB, file string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
