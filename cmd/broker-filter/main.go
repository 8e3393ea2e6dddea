// Command broker-filter matches stored events against Triggers and delivers them to subscribers.
package main

import (
	"os"
	_ "time/tzdata" // CEL filters may name time zones, and images have no zone database

	"github.com/spf13/pflag"

	"millrace.dev/internal/access"
	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/app"
	"millrace.dev/internal/cmdline"
	"millrace.dev/internal/objects/kube"
)

func main() {
	os.Exit(cmdline.Main(cmdline.NewServer(cmdline.Server{
		Use: "broker-filter", Short: "Match stored events against Triggers and deliver them to subscribers.",
		Bind: func(f *cmdline.Flags, fs *pflag.FlagSet) {
			f.BindNATS(fs)
			f.BindSubscribers(fs)
		},
		Run: app.RunFilter, Cluster: kube.Open, Access: openAccess,
	})))
}

func openAccess() (adminapi.Access, error) {
	c, err := kube.Config()
	if err != nil {
		return nil, err
	}
	return access.New(c)
}
