package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const documentsPerFile = 1000

// Options say what to run.
type Options struct {
	// Bin is the folder of the programs, see [Build].
	Bin string
	// Manifests are documents in YAML.
	Manifests []string
	// Ingresses and Filters are how many of each; an ingress serves every Broker.
	Ingresses, Filters int
	// Servers of NATS; default 1, more form a cluster.
	Servers int
	// SyncAlways makes NATS write through to the disk before it confirms.
	SyncAlways bool
	// Bare is the command that runs the bare handler, see [Rig.StartBare].
	Bare []string
	// Args and Env, as NAME=value, are given to each ingress and filter.
	Args, Env []string
	// Profiles makes the programs serve profiles.
	Profiles bool
}

// Rig is a running set of programs.
type Rig struct {
	// Processes are all that run.
	Processes []*Process
	// Hosts are the addresses of the ingresses, Bare that of the bare handler.
	Hosts []string
	Bare  string
	// Admin are the URLs of the filters' admin ports.
	Admin []string

	admins []string // of all ingresses and filters
	// Manifests is the folder of the manifests.
	Manifests string
	// NATSURL has the addresses of all NATS servers.
	NATSURL string

	opts Options
	dir  string
}

// New starts the programs and waits until they are ready. After an error nothing runs.
func New(ctx context.Context, o Options) (_ *Rig, err error) {
	o.Servers = max(1, o.Servers)
	r := &Rig{opts: o}
	if r.dir, err = os.MkdirTemp("", "millrace-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder for the store: %w", err)
	}
	r.Manifests = filepath.Join(r.dir, "manifests")
	if err = WriteManifests(r.Manifests, o.Manifests); err == nil {
		err = errors.Join(r.start(ctx), ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close stops the programs, the last one first, and removes what they stored.
func (r *Rig) Close() error {
	var err error
	for _, p := range slices.Backward(r.Processes) {
		err = errors.Join(err, p.Stop())
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

// WriteManifests writes the documents into files of a new folder, several into each file but not more than may be in one.
func WriteManifests(folder string, documents []string) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("write manifests: %w", err)
	}
	n := 0
	for part := range slices.Chunk(documents, documentsPerFile) {
		file := filepath.Join(folder, fmt.Sprintf("%03d.yaml", n))
		if err := os.WriteFile(file, []byte(strings.Join(part, "---\n")), 0o600); err != nil {
			return fmt.Errorf("write manifests: %w", err)
		}
		n++
	}
	return nil
}

func (r *Rig) start(ctx context.Context) error {
	if err := r.startNATS(ctx); err != nil {
		return err
	}
	waiting, ctx := errgroup.WithContext(ctx)
	for range r.opts.Ingresses {
		if err := r.startIngress(ctx, waiting); err != nil {
			return errors.Join(err, waiting.Wait())
		}
	}
	for range r.opts.Filters {
		admin, err := r.startServer(ctx, waiting, "filter", "--allow-loopback")
		if err != nil {
			return errors.Join(err, waiting.Wait())
		}
		r.Admin, r.admins = append(r.Admin, admin), append(r.admins, admin)
	}
	return waiting.Wait()
}

func (r *Rig) startIngress(ctx context.Context, waiting *errgroup.Group) error {
	listen, err := FreeAddress()
	if err != nil {
		return err
	}
	r.Hosts = append(r.Hosts, listen)
	admin, err := r.startServer(ctx, waiting, "ingress", "--listen", listen)
	r.admins = append(r.admins, admin)
	return err
}

// startServer starts broker-ingress or broker-filter and returns the URL of its admin port.
func (r *Rig) startServer(ctx context.Context, waiting *errgroup.Group, role string, args ...string) (admin string, err error) {
	address, err := FreeAddress()
	if err != nil {
		return "", err
	}
	args = append(args, "-f", r.Manifests, "--nats-url", r.NATSURL, "--admin", address, "--log-level", "warn")
	args = append(args, r.opts.Args...)
	if r.opts.Profiles {
		args = append(args, "--profiles")
	}
	p, err := startWith(r.opts.Env, role, filepath.Join(r.opts.Bin, "broker-"+role), args...)
	if err != nil {
		return "", err
	}
	p.Profiles = "http://" + address + "/debug/pprof/profile"
	r.Processes = append(r.Processes, p)
	waiting.Go(func() error { return p.waitReady(ctx, "http://"+address+"/readyz") })
	return "http://" + address, nil
}

// StartBare starts the bare handler, which publishes to the subject.
func (r *Rig) StartBare(ctx context.Context, subject string) error {
	listen, err := FreeAddress()
	if err != nil {
		return err
	}
	args := append(slices.Clone(r.opts.Bare[1:]), "--nats", r.NATSURL, "--listen", listen, "--subject", subject)
	p, err := Start("bare", r.opts.Bare[0], args...)
	if err != nil {
		return err
	}
	r.Bare, p.Profiles = listen, "http://"+listen+"/debug/pprof/profile"
	r.Processes = append(r.Processes, p)
	return p.waitReady(ctx, "http://"+listen+"/healthz")
}

// startNATS starts the servers; those of a cluster know each other.
func (r *Rig) startNATS(ctx context.Context) error {
	var clients, routes []string
	for range r.opts.Servers {
		client, err := FreeAddress()
		route, err2 := FreeAddress()
		if err = errors.Join(err, err2); err != nil {
			return err
		}
		clients, routes = append(clients, client), append(routes, route)
	}
	for i := range clients {
		if err := r.startServerOfNATS(ctx, i, clients[i], routes); err != nil {
			return err
		}
	}
	r.NATSURL = "nats://" + strings.Join(clients, ",nats://")
	return nil
}

func (r *Rig) startServerOfNATS(ctx context.Context, i int, client string, routes []string) error {
	monitor, err := FreeAddress()
	profile, err2 := FreeAddress()
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	name := fmt.Sprintf("n%d", i)
	config := fmt.Sprintf("server_name: %s\nlisten: %q\nhttp: %q\njetstream { store_dir: %q", name, client, monitor, filepath.Join(r.dir, name))
	if r.opts.SyncAlways {
		config += ", sync_interval: always"
	}
	config += " }\n"
	if len(routes) > 1 {
		config += fmt.Sprintf("cluster { name: bench, listen: %q, routes: [nats://%s] }\n", routes[i], strings.Join(routes, ", nats://"))
	}
	if r.opts.Profiles {
		_, port, _ := strings.Cut(profile, ":")
		config += "prof_port: " + port + "\n"
	}
	file := filepath.Join(r.dir, name+".conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write the configuration of NATS: %w", err)
	}
	p, err := Start("nats", filepath.Join(r.opts.Bin, "nats-server"), "-c", file)
	if err != nil {
		return err
	}
	p.Profiles = "http://" + profile + "/debug/pprof/profile"
	r.Processes = append(r.Processes, p)
	if len(routes) > 1 { // ready only once all of them run
		return nil
	}
	return p.waitReady(ctx, "http://"+monitor+"/healthz")
}

// CPU is the processor time used so far by the processes of each role.
func (r *Rig) CPU() (map[string]time.Duration, error) {
	cpu := map[string]time.Duration{}
	var errs error
	for _, p := range r.Processes {
		used, err := p.CPU()
		errs = errors.Join(errs, err)
		cpu[p.Role] += used
	}
	return cpu, errs
}

// RSS is the memory that the processes of each role have in RAM, in bytes.
func (r *Rig) RSS() (map[string]int, error) {
	rss := map[string]int{}
	var errs error
	for _, p := range r.Processes {
		bytes, err := p.RSS()
		errs = errors.Join(errs, err)
		rss[p.Role] += bytes
	}
	return rss, errs
}

// Scrape reads the metrics of all ingresses and filters.
func (r *Rig) Scrape(ctx context.Context) error {
	for _, admin := range r.admins {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			return fmt.Errorf("scrape: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("scrape: %w", err)
		}
	}
	return nil
}
