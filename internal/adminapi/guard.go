package adminapi

import (
	"mime"
	"net"
	"net/http"
	"strings"
)

// Header must be on every request that changes something. A page of another site cannot make a browser send it.
const Header = "Millrace-Admin"

// refuse returns why a request is not served, or nil. It keeps out web pages: those of other sites, and those whose name
// was made to resolve to this machine.
func refuse(r *http.Request) *Problem {
	if onLoopback(r) && !isLocalName(r.Host) {
		return problemf(http.StatusForbidden, "the admin API is not served to %q", r.Host).
			hint("on this listener, use an IP address or localhost in the URL")
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get(Header) == "":
		return problemf(http.StatusForbidden, "a request that changes something needs the header %s: 1", Header)
	case r.Header.Get("Origin") != "":
		return problemf(http.StatusForbidden, "the admin API is not for web pages")
	case err != nil || media != "application/json":
		return problemf(http.StatusUnsupportedMediaType, "the body must be JSON").hint("set Content-Type: application/json")
	}
	return nil
}

// onLoopback says whether the connection came to a loopback address of this machine.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// isLocalName says whether host, with or without a port, is one that no foreign DNS zone can define.
func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil
}
