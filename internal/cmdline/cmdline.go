// Package cmdline holds what the programs' command lines have in common: the flags of a process, their defaults from
// the environment, and logging.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/app"
	"millrace.dev/internal/objects"
	"millrace.dev/internal/version"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/stream"
)

// envPrefix and a flag's name in capitals make the environment variable that sets its default: MILLRACE_NATS_URL for
// --nats-url.
const envPrefix = "MILLRACE_"

// Flags are the options of a process as given on the command line.
type Flags struct {
	app.Options
	logLevel, logFormat string
}

// BindProcess adds the flags that every process of the data plane has.
func (f *Flags) BindProcess(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.Manifests, "filename", "f", nil, "file or folder with manifests of Brokers, Triggers and sources; watched for changes; repeatable")
	fs.StringToStringVar(&f.Services, "service", nil, "address of a Service that Triggers refer to, as namespace/name=URL; repeatable")
	fs.BoolVar(&f.Profiles, "profiles", false, "serve profiles of the program under /debug/pprof/ of the admin port")
	fs.DurationVar(&f.DrainTimeout, "drain-timeout", app.DefaultDrainTimeout, "how long to finish what is under way when told to stop")
	fs.BoolFunc("latencies", "have latency histograms among the metrics (default true)", func(text string) error {
		on, err := strconv.ParseBool(text)
		f.NoLatencies = !on
		return err
	})
	fs.IntVar(&f.LogDeliveries, "log-deliveries", 0, "log one in so many successful deliveries; 0 for none. Attempts that fail are all logged")
	fs.Var((*negated)(&f.Journal.Off), "journal", "keep a journal of what becomes of events, for millrace why and tail")
	fs.Lookup("journal").NoOptDefVal = "true"
	fs.Var(newByteSize(&f.Journal.MaxBytes, stream.DefaultJournalBytes, minJournalBytes, 0), "journal-max-bytes",
		"bytes that the journal may take in the store; the oldest of it is dropped beyond")
	fs.DurationVar(&f.Journal.MaxAge, "journal-max-age", stream.DefaultJournalAge, "how long the journal keeps what became of an event")
	f.BindCommon(fs)
}

// minJournalBytes holds at least some of the largest blocks.
const minJournalBytes = 16 << 20

// negated is the flag that turns something on which is off if the value is true.
type negated bool

// String is the value of the flag.
func (n *negated) String() string { return strconv.FormatBool(!bool(*n)) }

// Set reads the value of the flag.
func (n *negated) Set(text string) error {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("%q: want true or false", text)
	}
	*n = negated(!on)
	return nil
}

// Type is what --help calls the value.
func (*negated) Type() string { return "bool" }

// BindCommon adds the flags that every process has.
func (f *Flags) BindCommon(fs *pflag.FlagSet) {
	fs.StringVar(&f.Admin, "admin", "127.0.0.1:8081", "address of /healthz, /readyz and /metrics; port 0 takes a free one")
	fs.BoolVar(&f.Sweep, "sweep", false, "delete streams, with the events in them, whose Broker has been gone for --sweep-grace")
	fs.DurationVar(&f.SweepGrace, "sweep-grace", app.DefaultSweepGrace, "how long a Broker must have been gone before --sweep deletes its streams")
	fs.Var(newByteSize(&f.Defaults.MaxBytes, app.DefaultMaxBytes, eventingv1.MinStoreBytes, 0), "default-max-bytes",
		"bytes of unsettled events a Broker may store, unless it has the annotation "+eventingv1.MaxBytesAnnotation)
	fs.Var(newByteSize(&f.Defaults.MaxEventBytes, app.DefaultMaxEventBytes, eventingv1.MinEventBytes, eventingv1.MaxEventBytes), "default-max-event-bytes",
		"bytes of data an event may have, unless its Broker has the annotation "+eventingv1.MaxEventBytesAnnotation)
	fs.IntVar(&f.Defaults.Replicas, "stream-replicas", 1, "NATS servers that keep a copy of a Broker's events (1, 3 or 5), unless it has the annotation "+eventingv1.ReplicasAnnotation)
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&f.logFormat, "log-format", "text", "text or json")
}

// BindListen adds the flag of a process that accepts events.
func (f *Flags) BindListen(fs *pflag.FlagSet) {
	fs.StringVar(&f.Listen, "listen", "127.0.0.1:8080", "address that events are posted to; port 0 takes a free one")
}

// BindSources adds the flag of a process that runs sources.
func (f *Flags) BindSources(fs *pflag.FlagSet) {
	fs.StringVar(&f.Instance, "instance", "", "name of this replica, the same after a restart and unlike that of any other, so that a restart does not divide the work anew")
}

// BindNATS adds the flags of a process that dials NATS.
func (f *Flags) BindNATS(fs *pflag.FlagSet) {
	fs.StringVar(&f.NATS.URL, "nats-url", "nats://127.0.0.1:4222", "URLs of the NATS servers, separated by commas")
	fs.StringVar(&f.NATS.CredentialsFile, "nats-credentials", "", "NATS credentials file (JWT and nkey)")
	fs.StringVar(&f.NATS.TLSCA, "nats-tls-ca", "", "PEM file with the certification authorities of the NATS servers")
	fs.StringVar(&f.NATS.TLSCert, "nats-tls-cert", "", "PEM file with the client certificate for NATS")
	fs.StringVar(&f.NATS.TLSKey, "nats-tls-key", "", "PEM file with the key of the client certificate for NATS")
}

// BindSubscribers adds the flags that say where subscribers may be.
func (f *Flags) BindSubscribers(fs *pflag.FlagSet) {
	fs.BoolVar(&f.AllowLoopback, "allow-loopback", false, "deliver to subscribers on this machine's loopback addresses too")
	fs.Func("allow-address", "address or range (CIDR) that subscribers may have although it is denied by default; repeatable",
		func(text string) error {
			prefix, err := parsePrefix(text)
			f.AllowAddresses = append(f.AllowAddresses, prefix)
			return err
		})
	fs.Func("deny-address", "address or range (CIDR), with :PORT for one port, that no subscriber may have; repeatable",
		func(text string) error {
			target, err := parseTarget(text)
			f.DenyAddresses = append(f.DenyAddresses, target)
			return err
		})
}

// parsePrefix reads an address or a range of addresses.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8", text)
	}
	return p.Masked(), nil
}

// parseTarget reads a range of addresses with an optional port: 10.0.0.0/8, 10.0.0.1:4222, [fd00::/8]:4222.
func parseTarget(text string) (delivery.Target, error) {
	if p, err := parsePrefix(text); err == nil {
		return delivery.Target{Prefix: p}, nil
	}
	i := strings.LastIndexByte(text, ':')
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if i < 0 || err != nil || port == 0 {
		return delivery.Target{}, fmt.Errorf("%q is no address or range with an optional port, such as 10.0.0.0/8:4222 or [fd00::/8]:4222", text)
	}
	p, err := parsePrefix(strings.Trim(text[:i], "[]"))
	return delivery.Target{Prefix: p, Port: uint16(port)}, err
}

// Logger returns the logger that the flags ask for.
func (f *Flags) Logger(w io.Writer) (*slog.Logger, error) {
	level := &slog.LevelVar{}
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel)
	}
	f.LogLevel = level
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	default:
		return nil, fmt.Errorf("--log-format %q: want text or json", f.logFormat)
	}
}

// SetFromEnvironment gives every flag that was not set on the command line the value of its environment variable, if
// there is one.
func SetFromEnvironment(fs *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	fs.VisitAll(func(flag *pflag.Flag) {
		name := EnvName(flag.Name)
		value, ok := lookup(name)
		if !ok || flag.Changed {
			return
		}
		if err := fs.Set(flag.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

// EnvName is the environment variable of a flag.
func EnvName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Server describes a program of the data plane.
type Server struct {
	Use, Short string
	// Bind adds flags to those that every program has.
	Bind func(*Flags, *pflag.FlagSet)
	Run  func(context.Context, app.Options) error
	// Cluster opens the cluster as the source of objects.
	Cluster func(*slog.Logger) (objects.Source, error)
	// Access opens the cluster as what decides who is served by the admin port; nil for a program that has nothing to keep.
	Access func() (adminapi.Access, error)
}

// NewServer returns the command of a program of the data plane.
func NewServer(s Server) *cobra.Command {
	var kubernetes bool
	bind := func(f *Flags, fs *pflag.FlagSet) {
		f.BindProcess(fs)
		fs.BoolVar(&kubernetes, "kubernetes", false, "take objects from the cluster this runs in, or that of KUBECONFIG, instead of manifests")
		s.Bind(f, fs)
	}
	return NewCommand(s.Use, s.Short, bind, func(ctx context.Context, f *Flags) (err error) {
		switch {
		case kubernetes && len(f.Manifests) > 0:
			return errors.New("give either --kubernetes or manifests with --filename, not both")
		case kubernetes:
			if f.Cluster, err = s.Cluster(f.Options.Logger); err != nil {
				return err
			}
			if s.Access == nil {
				break
			}
			if f.Access, err = s.Access(); err != nil {
				return err
			}
		case len(f.Manifests) == 0:
			return fmt.Errorf("no manifests: give a file or folder with --filename or %s, or --kubernetes in a cluster", EnvName("filename"))
		}
		relaxGC()
		return s.Run(ctx, f.Options)
	})
}

// NewCommand returns the command of a program that is one process. bind adds its flags; run gets them with a logger.
func NewCommand(use, short string, bind func(*Flags, *pflag.FlagSet), run func(context.Context, *Flags) error) *cobra.Command {
	f := &Flags{}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs, Version: version.String(), SilenceUsage: true, SilenceErrors: true,
		Long: short + "\n\nEvery flag can also be given by an environment variable: " + EnvName("nats-url") + " for --nats-url.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := SetFromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			var err error
			if f.Options.Logger, err = f.Logger(cmd.ErrOrStderr()); err != nil {
				return err
			}
			return Advise(run(cmd.Context(), f), "--listen", "--admin")
		},
	}
	bind(f, cmd.Flags())
	return cmd
}

// gcPercent is how much garbage there may be before it is collected, in percent of what is alive. That is little in these
// programs, and an event leaves much garbage, so that Go's default of 100 collects many times a second.
const gcPercent = 300

// relaxGC sets that, unless the environment says otherwise. A limit by GOMEMLIMIT holds in any case.
func relaxGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// Advise adds to an error what to do about it on the command line: if an address is taken, to choose another with one of
// the flags given.
func Advise(err error, addressFlags ...string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w; stop the program that has it, or choose another address with %s", err, strings.Join(addressFlags, " or "))
}

// Main runs the command until it ends or the process is told to stop by SIGINT or SIGTERM, and returns the exit code: 0
// if all went well, else 1.
func Main(cmd *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", cmd.Name(), err)
		return 1
	}
	return 0
}
