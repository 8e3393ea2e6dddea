// Command millrace is the command line of Millrace: it runs a broker on a laptop, sends and shows events, and tells why
// a Trigger does or does not match one. `millrace --help` lists its commands.
//
// It exits with 0 on success, 1 on failure, 2 when the command line makes no sense, and 3 when `millrace trigger test`
// finds a Trigger and an event that do not come out as expected.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // CEL filters may name time zones, and images have no zone database

	"millrace.dev/internal/cli"
)

func main() {
	os.Exit(run())
}

// run ends the commands' context on the first SIGINT or SIGTERM, so that they stop in good order; a second one ends the
// process at once.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return cli.Execute(ctx, cli.NewRoot(os.Args[0]))
}
