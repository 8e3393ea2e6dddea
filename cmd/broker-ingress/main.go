// Command broker-ingress accepts CloudEvents over HTTP and stores them in NATS JetStream.
package main

import (
	"os"

	"github.com/spf13/pflag"

	"millrace.dev/internal/app"
	"millrace.dev/internal/cmdline"
)

func main() {
	os.Exit(cmdline.Main(cmdline.NewServer("broker-ingress", "Accept CloudEvents over HTTP and store them in NATS JetStream.",
		func(f *cmdline.Flags, fs *pflag.FlagSet) {
			f.BindProcess(fs)
			f.BindListen(fs)
			f.BindNATS(fs)
		}, app.RunIngress)))
}
