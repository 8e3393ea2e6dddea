// Viewers plays the viewers of the example: it writes what they do to Kafka, while a command, the broker, runs.
//
// Without --kafka it also is the Kafka: one in memory, for the example alone.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topic is what the KafkaSource of the example reads, partitions how many a Kafka in memory gives it.
const (
	topic      = "viewer-interactions"
	partitions = 4
)

// patience is how long the command has to end once it is asked to.
const patience = 30 * time.Second

type options struct {
	kafka, listen string
	rate, records int
	seed          uint64
}

func main() {
	var o options
	flag.StringVar(&o.kafka, "kafka", "", "write to the Kafka at this address, which has the topic "+topic+", instead of starting one in memory")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:9092", "address of the Kafka in memory, on 127.0.0.1")
	flag.IntVar(&o.rate, "rate", 4, "records a second, 1 to 1000")
	flag.IntVar(&o.records, "records", 10_000, "how many records to write, so that an example left alone ends")
	flag.Uint64Var(&o.seed, "seed", 1, "what viewers do follows from it")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "viewers [flags] COMMAND...\n\nWrite to Kafka what viewers do while COMMAND runs.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "viewers:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

func run(ctx context.Context, o options, command []string) error {
	if len(command) == 0 || o.rate < 1 || o.rate > 1000 {
		return errors.New("give a rate of 1 to 1000, and a command to run: make run-kafka shows how")
	}
	address := o.kafka
	if address == "" {
		var err error
		if address, err = startKafka(o.listen); err != nil {
			return err
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DefaultProduceTopic(topic), kgo.RecordDeliveryTimeout(time.Minute))
	if err != nil {
		return fmt.Errorf("use Kafka at %s: %w", address, err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- broker(ctx, command) }()
	written := make(chan error, 1)
	go func() { written <- write(ctx, client, o) }()
	for {
		select {
		case err := <-ended:
			return err
		case err := <-written:
			if err != nil && ctx.Err() == nil {
				cancel()
				return errors.Join(fmt.Errorf("write to Kafka at %s: %w", address, err), <-ended)
			}
			written = nil // the broker goes on with what was written
		}
	}
}

// startKafka starts a Kafka in memory and returns its address.
func startKafka(listen string) (string, error) {
	host, text, err := net.SplitHostPort(listen)
	port, err2 := strconv.Atoi(text)
	if err := errors.Join(err, err2); err != nil || host != "127.0.0.1" {
		return "", fmt.Errorf("--listen %s: write 127.0.0.1:PORT", listen)
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.SeedTopics(partitions, topic))
	if err != nil {
		return "", fmt.Errorf("start a Kafka at %s (--listen names another address, --kafka one that runs): %w", listen, err)
	}
	return c.ListenAddrs()[0], nil
}

// broker runs the command, and asks it to end when ctx ends. It is in a process group of its own, or an interrupt from the
// terminal would reach it twice.
func broker(ctx context.Context, command []string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}

// write writes the records, at the rate, until there are no more or ctx ends.
func write(ctx context.Context, client *kgo.Client, o options) error {
	tick := time.NewTicker(time.Second / time.Duration(o.rate))
	defer tick.Stop()
	random := rand.New(rand.NewPCG(o.seed, 0)) //nolint:gosec // for an example
	for range o.records {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		room, did := next(random)
		value, err := json.Marshal(did)
		if err != nil {
			return fmt.Errorf("encode a record: %w", err)
		}
		if err := client.ProduceSync(ctx, &kgo.Record{Key: []byte(room), Value: value}).FirstErr(); err != nil {
			return err //nolint:wrapcheck // the caller says what was done
		}
	}
	return nil
}

// interaction is something that a viewer did.
type interaction struct {
	Kind   string `json:"kind"`
	User   string `json:"user"`
	Text   string `json:"text,omitempty"`
	Gift   string `json:"gift,omitempty"`
	Amount int    `json:"amount,omitempty"`
}

// next is what is done next, and the room it is done in.
func next(random *rand.Rand) (room string, did interaction) {
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	room, did.User = pick("room-7", "room-42", "room-99"), pick("mia", "kenji", "lea", "ada", "bot9000")
	switch n := random.IntN(10); {
	case n < 5:
		did.Kind = "like"
	case n < 8:
		did.Kind, did.Text = "comment", pick("Hello from Lisbon!", "この曲大好き", "cheap coins at https://coins.example")
	default:
		did.Kind, did.Gift, did.Amount = "gift", pick("rose", "castle", "rocket"), 5<<random.IntN(7)
	}
	return room, did
}
