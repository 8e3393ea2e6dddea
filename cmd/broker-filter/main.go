// Command broker-filter matches stored events against Triggers and delivers them to subscribers.
package main

import (
	"os"
	_ "time/tzdata" // CEL filters may name time zones, and images have no zone database

	"github.com/spf13/pflag"

	"millrace.dev/internal/app"
	"millrace.dev/internal/cmdline"
)

func main() {
	os.Exit(cmdline.Main(cmdline.NewServer("broker-filter", "Match stored events against Triggers and deliver them to subscribers.",
		func(f *cmdline.Flags, fs *pflag.FlagSet) {
			f.BindProcess(fs)
			f.BindNATS(fs)
			f.BindSubscribers(fs)
		}, app.RunFilter)))
}
