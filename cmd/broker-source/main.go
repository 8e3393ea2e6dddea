// Command broker-source runs event sources: it reads from other systems and stores events for Brokers, or posts them to
// other sinks.
package main

import (
	"os"

	"github.com/spf13/pflag"

	"millrace.dev/internal/app"
	"millrace.dev/internal/cmdline"
	"millrace.dev/internal/objects/kube"
)

func main() {
	os.Exit(cmdline.Main(cmdline.NewServer(cmdline.Server{
		Use: "broker-source", Short: "Read events from other systems, such as Kafka, for Brokers and other sinks.",
		Bind: func(f *cmdline.Flags, fs *pflag.FlagSet) {
			f.BindNATS(fs)
			f.BindSubscribers(fs)
			f.BindSources(fs)
		},
		Run: app.RunSources, Cluster: kube.OpenSources,
	})))
}
