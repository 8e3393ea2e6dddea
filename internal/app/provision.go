package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"millrace.dev/pkg/stream"
)

const provisionRetry = 500 * time.Millisecond

// provisioner makes sure that the streams of all Brokers exist where no controller does it. It tries for ever: NATS may
// come later than we do.
type provisioner struct {
	conn *stream.Conn
	log  *slog.Logger
	wake chan struct{}

	mu   sync.Mutex
	want []*stream.Names
	done map[string]bool // by name of the event stream
}

func newProvisioner(conn *stream.Conn, log *slog.Logger) *provisioner {
	return &provisioner{conn: conn, log: log, wake: make(chan struct{}, 1), done: map[string]bool{}}
}

// apply sets the Brokers whose streams are wanted.
func (p *provisioner) apply(want []*stream.Names) {
	p.mu.Lock()
	p.want = want
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// ready reports whether the Broker's streams exist.
func (p *provisioner) ready(n *stream.Names) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done[n.Events]
}

// run provisions until ctx ends.
func (p *provisioner) run(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if !p.ensureAll(ctx) {
			again = time.After(provisionRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-again:
		}
	}
}

// ensureAll creates what is missing and reports whether all streams are there.
func (p *provisioner) ensureAll(ctx context.Context) bool {
	complete := true
	for _, n := range p.missing() {
		err := p.conn.Ensure(ctx, n, stream.Limits{})
		if err != nil {
			complete = false
			if ctx.Err() == nil {
				p.log.WarnContext(ctx, "cannot create the streams of a broker yet",
					slog.String("broker", n.Namespace+"/"+n.Name), slog.Any("error", err))
			}
			continue
		}
		p.mu.Lock()
		p.done[n.Events] = true
		p.mu.Unlock()
	}
	return complete
}

func (p *provisioner) missing() []*stream.Names {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []*stream.Names
	for _, n := range p.want {
		if !p.done[n.Events] {
			missing = append(missing, n)
		}
	}
	return missing
}
