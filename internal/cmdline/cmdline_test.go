package cmdline

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"millrace.dev/internal/app"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/delivery"
)

// runWith runs a server command with all flags and returns the options that it passed on.
func runWith(t *testing.T, args ...string) (app.Options, error) {
	t.Helper()
	var got app.Options
	cmd := NewServer(Server{
		Use: "x", Short: "Do x.",
		Bind: func(f *Flags, fs *pflag.FlagSet) {
			f.BindListen(fs)
			f.BindNATS(fs)
			f.BindSubscribers(fs)
		},
		Run: func(_ context.Context, o app.Options) error {
			got = o
			return nil
		},
		Cluster: func(*slog.Logger) (objects.Source, error) { return &objects.Files{}, nil },
	})
	cmd.SetArgs(args)
	cmd.SetErr(&bytes.Buffer{})
	return got, cmd.ExecuteContext(t.Context())
}

func TestFlagsBecomeOptions(t *testing.T) {
	t.Setenv("MILLRACE_NATS_URL", "nats://from.environment:4222")
	t.Setenv("MILLRACE_LISTEN", "127.0.0.1:1")
	got, err := runWith(t, "-f", "a.yaml", "-f", "b/", "--listen", "127.0.0.1:2", "--service", "default/s=http://s.example",
		"--nats-credentials", "c", "--allow-loopback", "--allow-address", "169.254.1.0/24", "--deny-address", "10.0.0.1:4222",
		"--deny-address", "fd00::/8", "--drain-timeout", "3s")
	if err != nil {
		t.Fatal(err)
	}
	if got.NATS.URL != "nats://from.environment:4222" || got.Listen != "127.0.0.1:2" {
		t.Errorf("NATS %q, listen %q: the command line goes before the environment, that before the default", got.NATS.URL, got.Listen)
	}
	if diff := cmp.Diff([]string{"a.yaml", "b/"}, got.Manifests); diff != "" {
		t.Error(diff)
	}
	if got.Services["default/s"] != "http://s.example" || got.NATS.CredentialsFile != "c" || !got.AllowLoopback || got.DrainTimeout != 3*time.Second {
		t.Errorf("got %+v", got)
	}
	want := []delivery.Target{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Port: 4222}, {Prefix: netip.MustParsePrefix("fd00::/8")}}
	if diff := cmp.Diff(want, got.DenyAddresses, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if len(got.AllowAddresses) != 1 || got.Logger == nil {
		t.Errorf("got %+v", got)
	}
}

func TestObjectsFromACluster(t *testing.T) {
	got, err := runWith(t, "--kubernetes")
	if err != nil || got.Cluster == nil {
		t.Errorf("with --kubernetes: source %v, error %v", got.Cluster, err)
	}
	got, err = runWith(t, "-f", "a")
	if err != nil || got.Cluster != nil {
		t.Errorf("with manifests: source %v, error %v", got.Cluster, err)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		env  [2]string
		want string
	}{
		"no manifests":    {nil, [2]string{}, "MILLRACE_FILENAME"},
		"two sources":     {[]string{"-f", "a", "--kubernetes"}, [2]string{}, "either --kubernetes or manifests"},
		"log level":       {[]string{"-f", "a", "--log-level", "loud"}, [2]string{}, "want debug, info, warn or error"},
		"log format":      {[]string{"-f", "a", "--log-format", "xml"}, [2]string{}, "want text or json"},
		"allowed address": {[]string{"-f", "a", "--allow-address", "10.0.0/8"}, [2]string{}, "neither an address nor a range"},
		"denied address":  {[]string{"-f", "a", "--deny-address", "10.0.0.1:x"}, [2]string{}, "optional port"},
		"no colon":        {[]string{"-f", "a", "--deny-address", "nats"}, [2]string{}, "optional port"},
		"an argument":     {[]string{"-f", "a", "b"}, [2]string{}, "unknown command"},
		"environment":     {[]string{"-f", "a"}, [2]string{"MILLRACE_DRAIN_TIMEOUT", "long"}, "MILLRACE_DRAIN_TIMEOUT"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			_, err := runWith(t, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}
