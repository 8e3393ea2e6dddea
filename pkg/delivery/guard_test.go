package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The addresses that nobody may dial by default, as a dialer would be given them.
var forbiddenAddresses = strings.Fields(`
	127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.255 ::1 ::1%lo ::1%eth0
	::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:127.255.0.1 ::127.0.0.1 ::7f00:1
	64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::7f00:1 64:ff9b:1:7f00:0:100:: 2002:7f00:1:: 2002:7f00:0001::1
	::ffff:0:127.0.0.1 ::ffff:0:7f00:1 fe80::5efe:7f00:1 2001:db8::5efe:7f00:1 2001:db8::200:5efe:7f00:1

	0.0.0.0 0.0.0.1 0.1.2.3 0.255.255.255 :: ::%eth0 ::ffff:0.0.0.0 ::ffff:0:0 ::ffff:0.1.2.3 64:ff9b::0.0.0.0
	64:ff9b::1 2002:: 2002::1 2002:0:0:1::1 ::0.0.0.2

	169.254.0.0 169.254.0.1 169.254.1.1 169.254.169.254 169.254.169.253 169.254.169.123 169.254.170.2 169.254.170.23
	169.254.255.255 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::169.254.169.254 ::a9fe:a9fe 64:ff9b::169.254.169.254
	64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:1:2:3:a9fe:a9fe 2002:a9fe:a9fe::
	2002:a9fe:a9fe::1 2002:a9fe:a9fe:1:2:3:4:5 ::ffff:0:169.254.169.254 2001:db8::5efe:a9fe:a9fe
	fd12:3456::200:5efe:169.254.169.254 2001::5601:5601 2001:0:a9fe:a9fe:: 2001:0:c000:201:0:0:5601:5601

	fe80:: fe80::1 fe80::1%eth0 fe80::1%1 fe80::a9fe:a9fe fe80:0:0:1::1 fe9f::1 feaf::1 febf:ffff::1
	febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::dead:beef%cni0

	fd00:ec2::254 fd00:ec2::254%eth0 fd00:ec2::23 fd00:ec2::253 fd20:ce::254 100.100.100.200 ::ffff:100.100.100.200
	::100.100.100.200 64:ff9b::100.100.100.200 2002:6464:64c8:: 168.63.129.16 ::ffff:168.63.129.16 64:ff9b::168.63.129.16
	2002:a83f:8110::1 192.0.0.192 ::ffff:192.0.0.192 64:ff9b::c000:c0

	224.0.0.0 224.0.0.1 224.0.0.251 239.255.255.250 239.255.255.255 ::ffff:224.0.0.1 64:ff9b::224.0.0.1 2002:e000:1::
	ff00:: ff01::1 ff02::1 ff02::1%eth0 ff02::fb ff05::2 ff0e::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff

	255.255.255.255 ::ffff:255.255.255.255 ::255.255.255.255 64:ff9b::255.255.255.255 2002:ffff:ffff::
`)

// Addresses that are one off, and those of clusters and of the internet.
var permittedAddresses = strings.Fields(`
	10.0.0.1 10.96.0.10 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.1.254 100.64.0.1 100.100.100.199
	100.100.100.201 100.127.255.255 1.0.0.0 1.1.1.1 8.8.8.8 126.255.255.255 128.0.0.0 128.0.0.1 169.253.255.255 169.255.0.0
	168.63.129.15 168.63.129.17 192.0.0.191 192.0.0.193 192.0.2.1 198.18.0.1 203.0.113.7 223.255.255.255 240.0.0.1
	255.255.255.254 ::ffff:10.0.0.1 ::ffff:1.1.1.1 ::10.0.0.1 64:ff9b::8.8.8.8 64:ff9b::10.0.0.1 2002:808:808::1
	2002:a00:1:: 2001:db8::1 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450::1 fc00::1 fd00::1 fd00:10:96::a
	fd00:ec1:ffff::254 fd00:ec3::254 fd20:ce::253 fec0::1 fe7f:ffff::1 feff::1 fd00::1%eth0 2001:db8::5efe:a00:1
`)

func TestGuardDefaults(t *testing.T) {
	g := newGuard(&Options{})
	for _, text := range forbiddenAddresses {
		for _, port := range []uint16{80, 443, 8080} {
			to := netip.AddrPortFrom(netip.MustParseAddr(text), port)
			if err := g.check(to); !errors.Is(err, ErrDenied) {
				t.Errorf("%s may be dialed", to)
			}
		}
	}
	for _, text := range permittedAddresses {
		if err := g.check(netip.AddrPortFrom(netip.MustParseAddr(text), 80)); err != nil {
			t.Errorf("check: %v", err)
		}
	}
	t.Logf("%d addresses", len(forbiddenAddresses)+len(permittedAddresses))
}

func TestGuardOptions(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		var ps []netip.Prefix
		for _, s := range texts {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	nats := Target{Prefix: netip.MustParsePrefix("10.96.7.7/32"), Port: 4222}
	api := Target{Prefix: netip.MustParsePrefix("10.96.0.1/32")}
	api6 := Target{Prefix: netip.MustParsePrefix("fd00:10:96::1/128")}
	tests := []struct {
		name    string
		options Options
		address string
		ok      bool
	}{
		{"loopback in development", Options{AllowLoopback: true}, "127.0.0.1:8080", true},
		{"IPv6 loopback in development", Options{AllowLoopback: true}, "[::1]:8080", true},
		{"mapped loopback in development", Options{AllowLoopback: true}, "[::ffff:127.0.0.1]:8080", true},
		{"metadata in development", Options{AllowLoopback: true}, "169.254.169.254:80", false},
		{"unspecified in development", Options{AllowLoopback: true}, "0.0.0.0:80", false},
		{"IPv6 unspecified in development", Options{AllowLoopback: true}, "[::]:80", false},

		{"allowed", Options{Allow: prefixes("169.254.20.0/24")}, "169.254.20.10:80", true},
		{"allowed, mapped", Options{Allow: prefixes("169.254.20.0/24")}, "[::ffff:169.254.20.10]:80", true},
		{"allowed, with a zone", Options{Allow: prefixes("fe80::/10")}, "[fe80::1%eth0]:80", true},
		{"next to what is allowed", Options{Allow: prefixes("169.254.20.0/24")}, "169.254.21.10:80", false},
		{
			"allowing a way in does not come from what is inside",
			Options{Allow: prefixes("169.254.20.0/24")},
			"[64:ff9b::169.254.20.10]:80", false,
		},
		{"allowing the way in", Options{Allow: prefixes("64:ff9b::/96")}, "[64:ff9b::169.254.20.10]:80", true},
		{"allowed loopback", Options{Allow: prefixes("127.0.0.1/32")}, "127.0.0.1:80", true},
		{"other loopback", Options{Allow: prefixes("127.0.0.1/32")}, "127.0.0.2:80", false},

		{"denied port", Options{Deny: []Target{nats}}, "10.96.7.7:4222", false},
		{"denied port, mapped", Options{Deny: []Target{nats}}, "[::ffff:10.96.7.7]:4222", false},
		{"denied port, NAT64", Options{Deny: []Target{nats}}, "[64:ff9b::10.96.7.7]:4222", false},
		{"denied port, 6to4", Options{Deny: []Target{nats}}, "[2002:a60:707::1]:4222", false},
		{"denied port, ISATAP", Options{Deny: []Target{nats}}, "[2001:db8::5efe:a60:707]:4222", false},
		{"other port", Options{Deny: []Target{nats}}, "10.96.7.7:80", true},
		{"other address", Options{Deny: []Target{nats}}, "10.96.7.8:4222", true},
		{"every port", Options{Deny: []Target{api}}, "10.96.0.1:443", false},
		{"every other port", Options{Deny: []Target{api}}, "10.96.0.1:6443", false},
		{"denied IPv6", Options{Deny: []Target{api6}}, "[fd00:10:96::1]:443", false},
		{"denied IPv6 with a zone", Options{Deny: []Target{api6}}, "[fd00:10:96::1%eth0]:443", false},
		{"deny wins over allow", Options{Deny: []Target{api}, Allow: prefixes("10.0.0.0/8")}, "10.96.0.1:443", false},
		{
			"deny wins over development",
			Options{AllowLoopback: true, Deny: []Target{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Port: 4222}}},
			"127.0.0.1:4222", false,
		},

		{
			"a mapped prefix is that of the addresses in it",
			Options{Deny: []Target{{Prefix: netip.MustParsePrefix("::ffff:10.96.0.0/108")}}},
			"10.96.0.1:443", false,
		},
		{"allowed by a mapped prefix", Options{Allow: prefixes("::ffff:169.254.20.0/120")}, "169.254.20.10:80", true},

		{"no port", Options{}, "10.0.0.1", false},
		{"a name", Options{}, "localhost:80", false},
		{"empty", Options{}, "", false},
		{"no address", Options{}, ":80", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			network := "tcp4"
			if strings.HasPrefix(tt.address, "[") {
				network = "tcp6"
			}
			err := newGuard(&tt.options).control(t.Context(), network, tt.address, nil)
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrDenied) {
				t.Errorf("control(%s) = %v, want ok = %t", tt.address, err, tt.ok)
			}
		})
	}
	for _, network := range []string{"udp4", "udp6", "unix", "ip4", ""} {
		if err := newGuard(&Options{}).control(t.Context(), network, "10.0.0.1:80", nil); !errors.Is(err, ErrDenied) {
			t.Errorf("control lets %q through: %v", network, err)
		}
	}
}

// TestHostNotations sends to hosts that mean a local server in some notation. The server has to stay unvisited.
func TestHostNotations(t *testing.T) {
	var visits atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hosts := []string{
		"127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "017700000001",
		"0177.0.0.1", "0177.1", "127.0.0.1.", "127.000.000.001", "127.0.0.0x1", "0", "0.0.0.0", "00.0.0.0", "0x0",
		"localhost", "LOCALHOST", "localhost.", "%6c%6fcalhost", "%31%32%37.0.0.1", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1",
		"[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
		"[::127.0.0.1]", "[::1%25lo]", "[::ffff:127.0.0.1%25lo]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"user@127.0.0.1", "user:pass@127.0.0.1", "example.com:80@127.0.0.1", "example.com%40127.0.0.1",
		"example.com%2F@127.0.0.1", "169.254.169.254@127.0.0.1", "127.0.0.1%00.example.com", "127.0.0.1#@example.com",
	}
	// A name server that knows no name, and one that takes everything for the local machine, as resolvers of the C library
	// take the odd notations of addresses.
	for _, a := range []*answers{nil, {ip: [4]byte{127, 0, 0, 1}}} {
		s := NewSender(Options{Resolver: nameServer(t, a)})
		defer s.Close()
		for _, host := range hosts {
			for _, scheme := range []string{"http", "https"} {
				u, err := url.Parse(scheme + "://" + host + ":" + port + "/")
				if err != nil {
					continue // No such URL gets as far as a request.
				}
				r := s.Send(t.Context(), &Request{URL: u, Event: testEvent(), Timeout: time.Second})
				if r.Err == nil || r.Status != 0 || errors.Is(r.Err, ErrTimeout) {
					t.Errorf("%s: status %d, %v", u.Redacted(), r.Status, r.Err)
				}
			}
		}
	}
	if n := visits.Load(); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestCheckURL(t *testing.T) {
	good := []string{
		"http://a", "http://a/", "https://a:443/b?c=d#e", "http://a.b.svc.cluster.local/ns/broker", "HTTP://A",
		"http://10.0.0.1:65535", "http://[fd00::1]:80/", "http://user:pass@host/", "http://a//b/../c", "http://a:1",
		"http://xn--bcher-kva.example", "http://a:", "http://a?b",
	}
	for _, text := range good {
		if err := CheckURL(mustURL(t, text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	bad := []string{
		"", "a", "/a", "//a", "a/b", "http:", "http:a", "http:/a", "http:///a", "http://", "http://:80", "http://:80/a",
		"http://user@", "http://user@:80", "ftp://a", "file:///etc/passwd", "unix:///run/x.sock", "gopher://a", "bad://a",
		"javascript:alert(1)", "data:text/plain,x", "ws://a", "wss://a", "tcp://a:1", "nats://a:4222", "dict://a:1",
		"ldap://a", "http+unix://a", "h2c://a", "httpx://a", "http2://a", "http://a:0", "http://a:65536",
		"http://a:99999999", "mailto:a@b", "http:?a", "http:#a", "https:a:b@c",
	}
	for _, text := range bad {
		if err := CheckURL(mustURL(t, text)); !errors.Is(err, ErrURL) {
			t.Errorf("%q: %v, want ErrURL", text, err)
		}
	}
	if err := CheckURL(nil); !errors.Is(err, ErrURL) {
		t.Errorf("nil: %v, want ErrURL", err)
	}
	// What package url does not even parse cannot become a request.
	for _, text := range []string{
		"http://a\r\nX: y", "http://a/\r\nX: y", "http://a /", "http://a/?b\nc", "http://a:b", "http://[::1", "http://a\x00",
		"http://a\x7f", "ht tp://a", "http://a%zz", "http://[fe80::1%eth0]/", "://a",
	} {
		if u, err := url.Parse(text); err == nil {
			t.Errorf("%q parses as %v", text, u)
		}
	}
}

func TestCheckURLKeepsSecrets(t *testing.T) {
	for _, text := range []string{"ftp://user:secret@host", "http://user:secret@:80", "http://user:secret@host:0"} {
		if err := CheckURL(mustURL(t, text)); strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
}

// TestRebinding has a name that resolves to a good address first and to a bad one later.
func TestRebinding(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	local := server.Listener.Addr().(*net.TCPAddr)
	answers := &answers{ip: [4]byte{127, 0, 0, 1}}
	s := NewSender(Options{AllowLoopback: true, Resolver: nameServer(t, answers)})
	defer s.Close()
	request := &Request{URL: mustURL(t, fmt.Sprintf("http://rebind.test:%d/", local.Port)), Event: testEvent()}

	if r := s.Send(t.Context(), request); r.Err != nil || r.Status != http.StatusAccepted {
		t.Fatalf("first attempt: status %d, %v", r.Status, r.Err)
	}
	for _, ip := range [][4]byte{{169, 254, 169, 254}, {0, 0, 0, 0}, {100, 100, 100, 200}, {224, 0, 0, 1}} {
		answers.set(ip)
		if r := s.Send(t.Context(), request); !errors.Is(r.Err, ErrDenied) {
			t.Errorf("after the name moved to %v: status %d, %v; want ErrDenied", ip, r.Status, r.Err)
		}
	}
}

// answers is a name server's mind.
type answers struct {
	mu sync.Mutex
	ip [4]byte
}

func (a *answers) set(ip [4]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ip = ip
}

func (a *answers) get() [4]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ip
}

// nameServer returns a resolver whose name server gives every name the address in a, or, if a is nil, knows no name.
func nameServer(t *testing.T, a *answers) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			serveName(server, a)
			_ = server.Close()
		}()
		return client, nil
	}}
}

// serveName answers one DNS query over a stream.
func serveName(c net.Conn, a *answers) {
	var size [2]byte
	buf := make([]byte, 1500)
	if _, err := c.Read(size[:]); err != nil {
		return
	}
	n, err := c.Read(buf[:int(size[0])<<8|int(size[1])])
	if err != nil {
		return
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf[:n]); err != nil || len(m.Questions) == 0 {
		return
	}
	m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
	if a != nil {
		m.RCode = dnsmessage.RCodeSuccess
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type, TTL: 0},
				Body:   &dnsmessage.AResource{A: a.get()},
			}}
		}
	}
	out, err := m.Pack()
	if err != nil {
		return
	}
	_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...))
}
