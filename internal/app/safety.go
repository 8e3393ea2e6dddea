package app

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"millrace.dev/pkg/delivery"
)

// defaultNATSPort is that of a NATS URL without one.
const defaultNATSPort = 4222

// ownInfrastructure returns the addresses that no subscriber may be at, whoever writes a Trigger: those of the NATS servers
// and of the Kubernetes API server. Names are resolved now; network policies are what holds when addresses move.
func ownInfrastructure(ctx context.Context, natsURLs string, getenv func(string) string) []delivery.Target {
	var targets []delivery.Target
	for raw := range strings.SplitSeq(natsURLs, ",") {
		host, port := natsHost(strings.TrimSpace(raw))
		targets = append(targets, targetsOf(ctx, host, port)...)
	}
	if host := getenv("KUBERNETES_SERVICE_HOST"); host != "" {
		port, _ := strconv.ParseUint(getenv("KUBERNETES_SERVICE_PORT"), 10, 16)
		targets = append(targets, targetsOf(ctx, host, uint16(port))...)
	}
	return targets
}

func natsHost(raw string) (host string, port uint16) {
	if !strings.Contains(raw, "://") {
		raw = "nats://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", 0
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		n = defaultNATSPort
	}
	return u.Hostname(), uint16(n)
}

// targetsOf denies every port of the host, and of a loopback address, which other programs share, the given one.
func targetsOf(ctx context.Context, host string, port uint16) []delivery.Target {
	if host == "" {
		return nil
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // it cannot be dialed under this name either
	}
	targets := make([]delivery.Target, len(addresses))
	for i, a := range addresses {
		a = a.Unmap()
		targets[i].Prefix = netip.PrefixFrom(a, a.BitLen())
		if a.IsLoopback() {
			targets[i].Port = port
		}
	}
	return targets
}
