package delivery

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"millrace.dev/pkg/event"
)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	keepAlive        = 30 * time.Second
	idleTimeout      = 90 * time.Second
	pingAfter        = 15 * time.Second
	pingTimeout      = 5 * time.Second
	// maxResponseHeader leaves room for a reply in binary mode, whose attributes may have maxAttributeBytes.
	maxResponseHeader = 128 << 10

	defaultIdlePerHost = 128
)

// Options are a Sender's options. The zero value is that of a production Sender.
//
// A subscriber's URL is written by a user who may not be trusted with the network that Millrace is in. A Sender
// therefore looks at each IP address just before it connects, whatever name or notation it came from. It never
// connects to link-local addresses and the known cloud metadata services, multicast, broadcast or unspecified addresses
// or loopback, nor to an IPv6 address that leads to one of these (IPv4-mapped and -compatible, NAT64, 6to4, Teredo,
// ISATAP). Private ranges are allowed: clusters live there.
type Options struct {
	// Version is what the User-Agent header says after "millrace/". The default is "dev".
	Version string
	// MaxIdlePerHost is how many idle connections are kept to one subscriber. It should be at least the number of
	// deliveries to it at a time, as each beyond that costs a new connection. The default is 128.
	MaxIdlePerHost int
	// MaxReplyBytes bounds the data of a reply. The default is 1 MiB, which is that of the ingress.
	MaxReplyBytes int
	// RootCAs are the certification authorities that an https subscriber's certificate may come from. The default is the
	// system's.
	RootCAs *x509.CertPool
	// AllowLoopback permits subscribers on the same machine: for development.
	AllowLoopback bool
	// Allow permits addresses that are denied by default.
	Allow []netip.Prefix
	// Deny forbids further addresses, such as those of NATS and the API server. It wins over Allow.
	Deny []Target
	// Resolver resolves names. The default is that of package net.
	Resolver *net.Resolver

	// dial replaces dialing in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sender makes attempts to deliver events. It keeps connections open between them, and is safe for concurrent use.
type Sender struct {
	plain, multiplexed, secure *http.Transport
	maxReply                   int
	// blank is what all requests have in common, and the headers of the same value in all of them.
	blank                              *http.Request
	userAgent, preferReply, structured []string
}

// NewSender returns a Sender.
func NewSender(o Options) *Sender {
	return &Sender{
		plain:       newTransport(&o, false),
		multiplexed: newTransport(&o, true),
		secure:      newTransport(&o, false),
		maxReply:    cmp.Or(o.MaxReplyBytes, 1<<20),
		blank:       &http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1},
		userAgent:   []string{"millrace/" + cmp.Or(o.Version, "dev")},
		preferReply: []string{"reply"},
		structured:  []string{event.ContentTypeJSON},
	}
}

// newTransport returns a transport that takes nothing from the environment. It bounds no connections: the number of
// deliveries at a time is bounded by who calls Send.
func newTransport(o *Options, cleartext bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!cleartext)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(cleartext)
	dial := NewDialer(*o).DialContext
	if o.dial != nil {
		dial = o.dial
	}
	return &http.Transport{
		DialContext:            dial,
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    cmp.Or(o.MaxIdlePerHost, defaultIdlePerHost),
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		// A timeout closes a connection of HTTP/1 but not one of HTTP/2, whose other streams may be well: find out.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}

// NewDialer returns a dialer that connects to no address that a Sender with the same options would not connect to. It is
// for what else dials addresses that users write. Only the options about addresses matter.
func NewDialer(o Options) *net.Dialer {
	return &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive, Resolver: o.Resolver, ControlContext: newGuard(&o).control}
}

// Close closes the connections that are idle.
func (s *Sender) Close() {
	s.plain.CloseIdleConnections()
	s.multiplexed.CloseIdleConnections()
	s.secure.CloseIdleConnections()
}

// Request is an event to be sent.
type Request struct {
	// URL is the subscriber's. User information in it becomes an Authorization header.
	URL *url.URL
	// Host, if set, is the Host header in place of the URL's host, for a gateway that routes by it.
	Host string
	// Event is the event. It is only read, so that many requests may share it; its Data must stay unchanged for good, as
	// the connection may still be reading from it when Send returns.
	Event *event.Event
	// Timeout bounds the attempt. The default is that of [DefaultPolicy].
	Timeout time.Duration
	// Format is the content mode.
	Format Format
	// Namespace is the Trigger's, for the Kn-Namespace header.
	Namespace string
	// Headers replace headers of the same name that the event brought along; the Authorization of an audience or the
	// traceparent of a span are such. They may not be attributes.
	Headers []event.Header
	// HTTP2Cleartext speaks HTTP/2 without TLS, with prior knowledge, to an http URL. The default is HTTP/1.1. To an https URL
	// the better of the two that the server offers is spoken in any case.
	HTTP2Cleartext bool
	// NoReply asks for no reply and ignores one: for dead letter sinks.
	NoReply bool
}

// Send makes one attempt: a POST of the event and the reading of the answer. It never retries, with one exception that
// cannot be told from no attempt: if the connection kept open from an earlier attempt turns out closed before a byte was
// written to it, another connection is taken.
//
// The request is as the Knative Eventing data plane specification has it: Prefer: reply, Kn-Namespace, and the headers
// that came with the event. The hop limit of the event is left out, and given to the reply.
//
// Of the answer, a 200 that is a CloudEvent, binary or structured, becomes Result.Reply. A 2xx that is not is a success
// all the same, and Result.Ignored says why its body does not count. If the subscriber has answered 2xx, the attempt cannot
// fail any more, save that a reply cannot be read to its end or is too large to be stored.
func (s *Sender) Send(ctx context.Context, r *Request) Result {
	start := time.Now()
	result := s.attempt(ctx, r)
	result.Duration = time.Since(start)
	return result
}

func (s *Sender) attempt(ctx context.Context, r *Request) Result {
	if err := CheckURL(r.URL); err != nil {
		return Result{Err: err}
	}
	inner, cancel := context.WithTimeout(ctx, cmp.Or(r.Timeout, DefaultPolicy().Timeout))
	defer cancel()
	req := s.newRequest(inner, r)
	resp, err := s.transport(r).RoundTrip(req)
	if err != nil {
		return Result{Err: explain(ctx, inner, req.Header, err)}
	}
	defer resp.Body.Close()
	a := answer{sender: s, request: r, response: resp, cancel: cancel}
	result := a.read()
	if result.Err != nil {
		result.Err = explain(ctx, inner, req.Header, result.Err)
	}
	return result
}

func (s *Sender) transport(r *Request) *http.Transport {
	switch {
	case r.URL.Scheme != "http":
		return s.secure
	case r.HTTP2Cleartext:
		return s.multiplexed
	default:
		return s.plain
	}
}

// explain finds out what lies behind the error of an attempt. outer is the caller's context and inner that of the
// attempt.
func explain(outer, inner context.Context, h http.Header, err error) error {
	switch {
	case errors.Is(err, ErrReplyTooLarge):
		return err
	case outer.Err() != nil:
		return fmt.Errorf("%w: %w", ErrAbandoned, context.Cause(outer))
	case errors.Is(inner.Err(), context.DeadlineExceeded):
		return ErrTimeout
	case !sendable(h):
		return fmt.Errorf("%w: %w", ErrUnsendable, err)
	default:
		return fmt.Errorf("send event: %w", err)
	}
}

// sendable says whether net/http takes the headers.
func sendable(h http.Header) bool {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return true
}

// CheckURL returns nil if events can be sent to u: an absolute http or https URL with a host. Otherwise it returns an
// ErrURL that says what is wrong. Whether the host exists and may be dialed shows when an event is sent. The error does not
// repeat the URL, which may hold a password.
func CheckURL(u *url.URL) error {
	switch {
	case u == nil:
		return fmt.Errorf("%w: there is none", ErrURL)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: the scheme %.32q is not http or https", ErrURL, u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return fmt.Errorf("%w: the host is missing", ErrURL)
	case u.Port() != "" && !validPort(u.Port()):
		return fmt.Errorf("%w: the port is not between 1 and 65535", ErrURL)
	}
	return nil
}

func validPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// newRequest builds the HTTP request. It sets GetBody, which is what lets net/http take another connection when a kept one
// is found closed before anything was written. It does not declare the request idempotent, which would make net/http
// repeat it even after the subscriber may have seen it: an attempt that nobody counts.
func (s *Sender) newRequest(ctx context.Context, r *Request) *http.Request {
	h := make(http.Header, len(r.Event.Attributes)+len(r.Event.Headers)+len(r.Headers)+6)
	data := s.writeEvent(h, r)
	req := s.blank.WithContext(ctx)
	req.URL, req.Host, req.Header = r.URL, cmp.Or(r.Host, r.URL.Host), h
	req.Body, req.ContentLength = http.NoBody, int64(len(data))
	if u := r.URL.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	setHeaders(h, r.Headers)
	if len(data) > 0 {
		req.Body = newBody(data)
		req.GetBody = func() (io.ReadCloser, error) { return newBody(data), nil }
	}
	return req
}

// writeEvent sets the headers of the request except for Request.Headers, and returns its body.
func (s *Sender) writeEvent(h http.Header, r *Request) []byte {
	values := addHeaders(h, r.Event.Headers)
	h["User-Agent"] = s.userAgent
	if !r.NoReply {
		h["Prefer"] = s.preferReply
	}
	if r.Namespace != "" {
		_, h["Kn-Namespace"] = single(values, r.Namespace)
	}
	if r.Format == Structured {
		h["Content-Type"] = s.structured
		return withoutHopLimit(r.Event).AppendJSON(nil)
	}
	r.Event.WriteHeader(h)
	delete(h, hopLimitHeader)
	return r.Event.Data
}

// addHeaders adds the headers that an event brought along. Those that belong to a connection or that this package sets
// are left out, as are those that HTTP cannot carry: they come from the store, where other programs may write, and none
// of them is worth losing the event. What it returns has room for one more value.
func addHeaders(h http.Header, headers []event.Header) (values []string) {
	values = make([]string, 0, len(headers)+1) // One allocation for all of them.
	for _, f := range headers {
		name := http.CanonicalHeaderKey(f.Name)
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(f.Value) || reserved(name) {
			continue
		}
		if present, ok := h[name]; ok {
			h[name] = append(present, f.Value)
			continue
		}
		values, h[name] = single(values, f.Value)
	}
	return values
}

// single adds a value and returns it as the values of one header.
func single(values []string, v string) (all, one []string) {
	values = append(values, v)
	n := len(values)
	return values, values[n-1 : n : n]
}

// setHeaders sets headers in place of those of the same name.
func setHeaders(h http.Header, headers []event.Header) {
	for _, f := range headers {
		h.Set(f.Name, f.Value)
	}
}

func reserved(name string) bool {
	switch name {
	case "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Cookie", "Expect", "Host",
		"Idempotency-Key", "Keep-Alive", "Kn-Namespace", "Prefer", "Proxy-Authorization", "Proxy-Connection", "Te",
		"Trailer", "Transfer-Encoding", "Upgrade", "User-Agent", "X-Idempotency-Key":
		return true
	}
	return len(name) > 3 && name[:3] == "Ce-"
}

// newBody reads data without copying it. Only of the readers it knows does net/http send the first bytes together with
// the headers, in one write.
func newBody(data []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(data)) }
