// Command broker-ingress accepts CloudEvents over HTTP and stores them in NATS JetStream.
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
		Use: "broker-ingress", Short: "Accept CloudEvents over HTTP and store them in NATS JetStream.",
		Bind: func(f *cmdline.Flags, fs *pflag.FlagSet) {
			f.BindListen(fs)
			f.BindNATS(fs)
		},
		Run: app.RunIngress, Cluster: kube.OpenBrokers,
	})))
}
