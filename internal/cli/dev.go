package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"millrace.dev/internal/app"
	"millrace.dev/internal/cli/eventfile"
	"millrace.dev/internal/cli/sender"
	"millrace.dev/internal/cmdline"
	"millrace.dev/internal/demo"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/stream"
)

// demoEvents is the file in a manifest folder whose events the demo sends.
const demoEvents = "events.ndjson"

// demoPause is the pause between two events of the demo.
const demoPause = 150 * time.Millisecond

type devFlags struct {
	cmdline.Flags
	data       string
	demo       bool
	demoListen string
}

func newDevCommand() *cobra.Command {
	f := &devFlags{}
	cmd := &cobra.Command{
		Use:   "dev -f PATH...",
		Short: "Run a whole broker on this machine, with an embedded JetStream",
		Long: `Run the ingress, the filter and an embedded, file-backed JetStream in one process, serving the Brokers and Triggers of the
given manifests. The manifests are watched: a change takes effect without a restart, and without losing or repeating an
event under way. Events that were accepted are kept in the data folder and delivered after a restart.

Every flag can also be given by an environment variable: ` + cmdline.EnvName("listen") + ` for --listen.`,
		Example: `  millrace dev -f examples/live-stream
  millrace dev -f broker.yaml -f triggers/ --listen 127.0.0.1:0
  millrace dev -f manifests/ --service default/event-display=http://127.0.0.1:8082`,
		Args: cobra.ArbitraryArgs, // for run to say what to write instead
	}
	cmd.RunE = runE(f.run)
	fs := cmd.Flags()
	f.BindProcess(fs)
	f.BindListen(fs)
	setDefault(fs, "log-level", "warn") // the console says what there is to say
	fs.StringVar(&f.data, "data", ".millrace", "folder of the embedded JetStream's store")
	fs.BoolVar(&f.demo, "demo", false, "also run the example's subscribers and send the events of "+demoEvents+" in the manifest folder")
	fs.StringVar(&f.demoListen, "demo-listen", "127.0.0.1:8090", "address of the demo's subscribers")
	return cmd
}

// setDefault changes the default of a flag that another package defined.
func setDefault(fs *pflag.FlagSet, name, value string) {
	flag := fs.Lookup(name)
	flag.DefValue = value
	_ = flag.Value.Set(value)
}

func (f *devFlags) run(cmd *cobra.Command, args []string) error {
	if err := cmdline.SetFromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
		return usageErrorf("%w", err)
	}
	if len(args) > 0 {
		return usageErrorf("manifests are given with -f: write -f %s", args[0])
	}
	if len(f.Manifests) == 0 {
		return usageErrorf("no manifests: give a file or folder with Brokers and Triggers with -f PATH")
	}
	log, err := f.Logger(cmd.ErrOrStderr())
	if err != nil {
		return usageErrorf("%w", err)
	}
	f.Options.Logger = log
	store, err := devserver.Start(devserver.Options{Dir: f.data, Bounded: true, Logger: log})
	if err != nil {
		return err
	}
	defer store.Stop()
	f.NATS = stream.ConnOptions{InProcess: store, Name: "millrace-dev"}
	o := app.DevOptions{Options: f.Options, Out: cmd.OutOrStdout()}
	if f.demo {
		o.Demo, o.DemoListen = demo.Subscribers(cmd.OutOrStdout()), f.demoListen
		o.OnReady = func(ctx context.Context, baseURL string) { f.sendDemo(ctx, cmd.OutOrStdout(), baseURL) }
	}
	return cmdline.Advise(app.RunDev(cmd.Context(), o), "--listen", "--admin", "--demo-listen")
}

// sendDemo posts the example's events until ctx ends, slowly enough for a person to follow.
func (f *devFlags) sendDemo(ctx context.Context, out io.Writer, baseURL string) {
	path := f.demoFile()
	if path == "" {
		return
	}
	fmt.Fprintf(out, "Sending the events of %s; each line below is an event that reached a subscriber.\n\n", path)
	s := sender.New(sender.Options{URL: baseURL + demo.BrokerPath, Retries: 3})
	for item := range eventfile.Open(path, nil) {
		if item.Err != nil {
			fmt.Fprintf(out, "%v\n", item.Err)
			continue
		}
		// A request cut short when people stop the demo would be reported as a failure.
		r := s.Send(context.WithoutCancel(ctx), item.Event)
		if ctx.Err() != nil {
			return
		}
		if !r.Accepted() {
			fmt.Fprintf(out, "An event of %s was not accepted: %s\n", path, r.Detail)
			return
		}
		if pause(ctx, demoPause) != nil {
			return
		}
	}
}

// demoFile is the file of events beside the manifests, or "".
func (f *devFlags) demoFile() string {
	for _, m := range f.Manifests {
		path := filepath.Join(m, demoEvents)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
