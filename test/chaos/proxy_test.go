package chaos

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// proxy passes TCP connections on to an address, and breaks them in several ways.
type proxy struct {
	listener net.Listener
	target   string
	// up is where bytes to the target pass, down where bytes from it do.
	up, down *valve
	wg       sync.WaitGroup

	mu      sync.Mutex
	refuses bool
	closed  bool
	links   map[*link]bool
}

// link is one connection through the proxy.
type link struct {
	client, server net.Conn
	once           sync.Once
	done           chan struct{}
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, up: newValve(), down: newValve(), links: map[*link]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	var dialer net.Dialer
	server, err := dialer.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server, done: make(chan struct{})}
	defer l.close()
	if !p.add(l) {
		return
	}
	defer p.remove(l)
	p.wg.Go(func() { p.pump(l, server, client, p.down) })
	p.pump(l, client, server, p.up)
}

func (p *proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses || p.closed {
		return false
	}
	p.links[l] = true
	return true
}

func (p *proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// pump passes bytes through the valve until either side ends.
func (p *proxy) pump(l *link, from, to net.Conn, v *valve) {
	defer l.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !v.pass(buf[:n], to, l.done) || err != nil {
			return
		}
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// refuse says whether new connections are refused.
func (p *proxy) refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = on
}

// stall says whether bytes are held back while connections stay open.
func (p *proxy) stall(on bool) {
	for _, v := range []*valve{p.up, p.down} {
		if on {
			v.shut()
		} else {
			v.open()
		}
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cut()
	p.wg.Wait()
}

// valve lets bytes of one direction pass, or holds them back.
type valve struct {
	mu     sync.Mutex
	opened chan struct{} // closed while bytes pass
	match  []byte
	caught chan struct{}
}

func newValve() *valve {
	v := &valve{opened: make(chan struct{})}
	close(v.opened)
	return v
}

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shutLocked()
}

func (v *valve) shutLocked() {
	select {
	case <-v.opened:
		v.opened = make(chan struct{})
	default:
	}
}

func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.match = nil
	select {
	case <-v.opened:
	default:
		close(v.opened)
	}
}

// catch shuts the valve at the first byte of the next occurrence of match; the channel is closed when that has happened.
func (v *valve) catch(match string) <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.match, v.caught = []byte(match), make(chan struct{})
	return v.caught
}

// pass writes data when the valve lets it; false if the link ended before.
func (v *valve) pass(data []byte, to net.Conn, done <-chan struct{}) bool {
	for len(data) > 0 {
		if !v.wait(done) {
			return false
		}
		free := v.free(data)
		if _, err := to.Write(data[:free]); err != nil {
			return false
		}
		data = data[free:]
	}
	return true
}

// free is how many bytes of data come before the match. If the match is in data, the valve shuts.
func (v *valve) free(data []byte) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.match == nil {
		return len(data)
	}
	at := bytes.Index(data, v.match)
	if at < 0 {
		return len(data)
	}
	v.match = nil
	v.shutLocked()
	close(v.caught)
	return at
}

// wait returns when the valve is open; false if the link ended before.
func (v *valve) wait(done <-chan struct{}) bool {
	v.mu.Lock()
	opened := v.opened
	v.mu.Unlock()
	select {
	case <-opened:
		return true
	case <-done:
		return false
	}
}
