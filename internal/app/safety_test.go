package app

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"millrace.dev/pkg/delivery"
)

func TestOwnInfrastructureIsDenied(t *testing.T) {
	for name, c := range map[string]struct {
		urls string
		env  map[string]string
		want []delivery.Target
	}{
		"addresses": {
			"nats://user:secret@10.1.2.3:4222, tls://10.1.2.4:5222,10.1.2.5", nil,
			[]delivery.Target{target("10.1.2.3/32", 0), target("10.1.2.4/32", 0), target("10.1.2.5/32", 0)},
		},
		"loopback":   {"nats://127.0.0.1:5000", nil, []delivery.Target{target("127.0.0.1/32", 5000)}},
		"no port":    {"127.0.0.1", nil, []delivery.Target{target("127.0.0.1/32", 4222)}},
		"IPv6":       {"nats://[::1]:4222", nil, []delivery.Target{target("::1/128", 4222)}},
		"API server": {"", map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, []delivery.Target{target("10.96.0.1/32", 0)}},
		"in process": {"", nil, nil},
		"unknown":    {"nats://nats.invalid:4222", nil, nil},
		"no URL":     {"nats://%zz", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := ownInfrastructure(t.Context(), c.urls, func(k string) string { return c.env[k] })
			if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func target(prefix string, port uint16) delivery.Target {
	return delivery.Target{Prefix: netip.MustParsePrefix(prefix), Port: port}
}
