// Command broker-controller makes the streams of Brokers, resolves where events go, and reports in the status of Brokers,
// Triggers and sources.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	_ "time/tzdata" // CEL filters may name time zones, and images have no zone database

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/cmdline"
	"millrace.dev/internal/controller"
	"millrace.dev/pkg/stream"
)

func main() { os.Exit(cmdline.Main(newCommand())) }

func newCommand() *cobra.Command {
	var o controller.Options
	bind := func(f *cmdline.Flags, fs *pflag.FlagSet) {
		f.BindCommon(fs)
		f.BindNATS(fs)
		fs.StringVar(&o.Namespace, "namespace", "", "namespace that this program and the ingress run in")
		fs.StringVar(&o.ClusterDomain, "cluster-domain", controller.DefaultClusterDomain, "domain of the cluster's Services")
		fs.BoolFunc("sources", "report on sources, whose CRDs must be there (default true)", func(text string) error {
			on, err := strconv.ParseBool(text)
			o.NoSources = !on
			return err
		})
		fs.StringVar(&o.IngressService, "ingress-service", controller.DefaultIngressService, "Service of the ingress in --namespace")
	}
	return cmdline.NewCommand("broker-controller", "Make Brokers' streams and report on Brokers, Triggers and sources in a cluster.", bind,
		func(ctx context.Context, f *cmdline.Flags) error { return run(ctx, f, o) })
}

func run(ctx context.Context, f *cmdline.Flags, o controller.Options) error {
	if o.Namespace == "" {
		return errors.New("no namespace: give it with --namespace or " + cmdline.EnvName("namespace"))
	}
	defaults, err := f.Defaults.Complete()
	if err != nil {
		return err
	}
	if o.Config, err = config.GetConfig(); err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	klog.SetSlogLogger(f.Options.Logger) // what the client of the API server logs
	o.Admin, o.NATS, o.Logger, o.LogLevel = f.Admin, f.NATS, f.Options.Logger, f.LogLevel
	o.Limits = func(b *eventingv1.Broker) stream.Limits {
		limits, _ := defaults.Resolve(b)
		return limits
	}
	if f.Sweep {
		o.SweepGrace = f.SweepGrace
	}
	return controller.Run(ctx, o)
}
