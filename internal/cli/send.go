package cli

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/cli/eventfile"
	"millrace.dev/internal/cli/sender"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/internal/version"
)

type sendFlags struct {
	eventType   string
	source      string
	subject     string
	id          string
	data        string
	contentType string
	extensions  []string

	file   string
	strict bool

	mode        string
	rate        float64
	concurrency int
	repeat      int
	retries     int
	timeout     time.Duration
	dryRun      bool
}

// eventFlags are the flags that describe one event; they do not go with a file of events.
func eventFlags() []string {
	return []string{"type", "source", "subject", "id", "data", "content-type", "ext"}
}

func newSendCommand() *cobra.Command {
	var flags sendFlags
	cmd := &cobra.Command{
		Use:   "send URL",
		Short: "Post events to a broker or subscriber",
		Long: "send posts one event made from flags, or the events of a file, to a URL.\n\n" +
			"Files hold events in the CloudEvents JSON format: one, an array, or one a line; gzip is understood.\n" +
			"The exit code is 1 when an event was refused or could not be read.",
		Example: "  millrace send http://localhost:8080/default/live --type com.example.greeting --data '{\"hello\":\"world\"}'\n" +
			"  millrace send http://localhost:8080/default/live -f events.ndjson --rate 100\n" +
			"  millrace send http://localhost:8080/default/live --type t --data @picture.png --content-type image/png",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageErrorf("send wants exactly one URL, such as http://localhost:8080/default/live")
			}
			return nil
		},
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if err := flags.validate(cmd, args[0]); err != nil {
				return err
			}
			return flags.run(cmd, args[0])
		}),
	}
	flags.register(cmd)
	cmd.ValidArgsFunction = upTo(1, completeURLs)
	registerCompletions(cmd, map[string]completion{
		"mode": cobra.FixedCompletions([]string{"binary", "structured"}, cobra.ShellCompDirectiveNoFileComp),
	})
	return cmd
}

func (f *sendFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.eventType, "type", "", "type of the event")
	flags.StringVar(&f.source, "source", "/millrace/send", "source of the event, a URI reference")
	flags.StringVar(&f.subject, "subject", "", "subject of the event")
	flags.StringVar(&f.id, "id", "", "id of the event (default a random UUID)")
	flags.StringVar(&f.data, "data", "", "data of the event: a string, @file, or - for standard input")
	flags.StringVar(&f.contentType, "content-type", "application/json", "media type of the data")
	flags.StringArrayVar(&f.extensions, "ext", nil, "an extension `name=value`; may be repeated")

	flags.StringVarP(&f.file, "file", "f", "", "send the events of this file; - is standard input")
	flags.BoolVar(&f.strict, "strict", false, "stop at the first event of the file that cannot be read")

	flags.StringVar(&f.mode, "mode", "binary", "content mode: binary or structured")
	flags.Float64Var(&f.rate, "rate", 0, "events a second; 0 is as fast as possible")
	flags.IntVar(&f.concurrency, "concurrency", 1, "requests at a time; with more than one the order is not kept")
	flags.IntVar(&f.repeat, "repeat", 1, "send everything `N` times; an event made from flags gets a new id each time unless --id is given")
	flags.IntVar(&f.retries, "retries", 3, "send again up to `N` times when the answer is 429 or 503 or nobody listens; Retry-After is honored up to 30s")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the requests instead of sending them")
}

func (f *sendFlags) validate(cmd *cobra.Command, target string) error {
	if err := validateURL(target); err != nil {
		return err
	}
	switch {
	case f.mode != "binary" && f.mode != "structured":
		return usageErrorf("--mode is binary or structured, not %q", f.mode)
	case f.concurrency < 1 || f.repeat < 1:
		return usageErrorf("--concurrency and --repeat are at least 1")
	case f.rate < 0 || f.retries < 0 || f.timeout < 0:
		return usageErrorf("--rate, --retries and --timeout cannot be negative")
	case f.file == eventfile.Stdin && f.repeat > 1:
		return usageErrorf("standard input can be read only once; save it to a file to --repeat it")
	case f.file == "" && f.eventType == "":
		return usageErrorf("the event needs a --type, such as --type com.example.order.created; or name a file of events with -f")
	case f.file == "":
		return nil
	}
	for _, name := range eventFlags() {
		if cmd.Flags().Changed(name) {
			return usageErrorf("--%s does not go with -f: the file says what the events are", name)
		}
	}
	return nil
}

func validateURL(target string) error {
	u, err := url.Parse(target)
	switch {
	case err != nil && !strings.Contains(target, "://"): // an address, whose colon no path may begin with
		return usageErrorf("%q is not an HTTP URL; did you mean http://%s?", target, target)
	case err != nil:
		return usageErrorf("%w; write a URL such as http://localhost:8080/default/live", err)
	case u.Scheme != "http" && u.Scheme != "https":
		return usageErrorf("%q is not an HTTP URL; did you mean http://%s?", target, target)
	case u.Host == "":
		return usageErrorf("%q has no host; write a URL such as http://localhost:8080/default/live", target)
	}
	return nil
}

func (f *sendFlags) run(cmd *cobra.Command, target string) error {
	events, err := f.events(cmd.InOrStdin())
	if err != nil {
		return err
	}
	j := &job{
		flags: f, events: events, summary: sender.NewSummary(),
		sender: sender.New(sender.Options{
			URL: target, Client: f.client(), Structured: f.mode == "structured",
			UserAgent: "millrace/" + version.String(), Retries: f.retries,
		}),
		out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), style: terminal.StyleFor(cmd.ErrOrStderr()),
	}
	return j.run(cmd.Context())
}

// client returns an HTTP client that keeps a connection for each request at a time and takes a redirect for what it is:
// an answer that did not accept the event.
func (f *sendFlags) client() *http.Client {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: f.concurrency,
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       f.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
