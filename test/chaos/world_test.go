package chaos

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"millrace.dev/test/harness"
)

// world is a running broker with everything around it.
type world struct {
	nodes     []*process // nats-servers
	ingresses []*member
	filters   []*member
	// brokers are the Broker's URLs, one an ingress.
	brokers []string
	// stores are the addresses of the NATS servers, past all proxies.
	stores []string
}

// member is a process with the proxies through which it reaches each NATS server.
type member struct {
	*process
	links []*proxy
}

func (m *member) cut() {
	for _, l := range m.links {
		l.cut()
	}
}

func (m *member) stall(on bool) {
	for _, l := range m.links {
		l.stall(on)
	}
}

func (m *member) refuse(on bool) {
	for _, l := range m.links {
		l.refuse(on)
	}
}

// size says of what a world consists.
type size struct{ nodes, ingresses, filters int }

// newWorld starts the processes with the given manifest and returns when all are ready.
func newWorld(t testing.TB, bin, manifest string, n size) *world {
	t.Helper()
	w := &world{}
	dir := t.TempDir()
	file := filepath.Join(dir, "broker.yaml")
	harness.WriteFile(t, file, manifest)
	w.startNodes(t, bin, dir, n.nodes)
	for i := range n.ingresses {
		listen := hostPort(harness.FreePort(t))
		w.ingresses = append(w.ingresses, w.member(t, bin, "broker-ingress", i, "-f", file, "--listen", listen))
		w.brokers = append(w.brokers, "http://"+listen+"/default/"+brokerName)
	}
	for i := range n.filters {
		w.filters = append(w.filters, w.member(t, bin, "broker-filter", i, "-f", file, "--allow-loopback"))
	}
	w.waitReady(t)
	return w
}

// startNodes starts NATS servers, more than one as a cluster. They do not tell clients of each other, so that clients stay
// with the proxies they were given.
func (w *world) startNodes(t testing.TB, bin, dir string, n int) {
	t.Helper()
	routes := make([]string, n)
	for i := range routes {
		routes[i] = hostPort(harness.FreePort(t))
	}
	for i := range n {
		client, monitor := hostPort(harness.FreePort(t)), hostPort(harness.FreePort(t))
		conf := fmt.Sprintf("server_name: n%d\nlisten: %s\nhttp: %s\njetstream {store_dir: %q, max_file_store: 1TB}\n",
			i, client, monitor, filepath.Join(dir, fmt.Sprint("nats-", i)))
		if n > 1 {
			conf += fmt.Sprintf("cluster {name: chaos, listen: %s, no_advertise: true, routes: [nats://%s]}\n",
				routes[i], strings.Join(routes, ", nats://"))
		}
		file := filepath.Join(dir, fmt.Sprintf("nats-%d.conf", i))
		harness.WriteFile(t, file, conf)
		w.nodes = append(w.nodes, newProcess(t, &process{
			name: fmt.Sprint("nats-", i), path: filepath.Join(bin, "nats-server"), args: []string{"-c", file},
			ready: "http://" + monitor + "/healthz",
		}))
		w.stores = append(w.stores, client)
	}
}

func (w *world) member(t testing.TB, bin, program string, i int, args ...string) *member {
	t.Helper()
	m := &member{}
	urls := make([]string, len(w.stores))
	for i, store := range w.stores {
		m.links = append(m.links, newProxy(t, store))
		urls[i] = "nats://" + m.links[i].address()
	}
	admin := hostPort(harness.FreePort(t))
	m.process = newProcess(t, &process{
		name: fmt.Sprintf("%s-%d", strings.TrimPrefix(program, "broker-"), i), path: filepath.Join(bin, program),
		args:  append(args, "--admin", admin, "--nats-url", strings.Join(urls, ",")),
		ready: "http://" + admin + "/readyz",
	})
	return m
}

func (w *world) members() []*member { return append(append([]*member{}, w.ingresses...), w.filters...) }

func (w *world) processes() []*process {
	return append(append([]*process{}, w.nodes...), processesOf(w.members())...)
}

func processesOf(members []*member) []*process {
	all := make([]*process, len(members))
	for i, m := range members {
		all[i] = m.process
	}
	return all
}

// waitReady waits until every process is ready, the store first.
func (w *world) waitReady(t testing.TB) {
	t.Helper()
	for _, p := range w.processes() {
		p.waitReady(t)
	}
}
