package chart

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// TestThreeServers starts three NATS servers with the configuration in config/nats-cluster, on ports of loopback, and stores
// a message on all of them, also with one of them stopped.
func TestThreeServers(t *testing.T) {
	folder, err := os.MkdirTemp(filepath.Join(cluster.Root(), "config"), ".chart-test-") //nolint:usetesting // kustomize reads nothing outside its root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	harness.WriteFile(t, filepath.Join(folder, "kustomization.yaml"), "resources: [../default]\ncomponents: [../nats-cluster]\n")
	var text, urls string
	replicas := int64(0)
	for _, o := range Kustomize(t, folder) {
		switch o.GetKind() + " " + o.GetName() {
		case "ConfigMap nats":
			text, _ = at(o.Object, []string{"data", "nats~conf"}).(string)
		case "ConfigMap millrace-settings":
			urls, _ = at(o.Object, []string{"data", "MILLRACE_NATS_URL"}).(string)
		case "StatefulSet nats":
			replicas, _ = at(o.Object, []string{"spec", "replicas"}).(int64)
			if n, ok := at(o.Object, []string{"spec", "replicas"}).(float64); ok {
				replicas = int64(n)
			}
		}
	}
	if replicas != 3 {
		t.Fatalf("%d servers", replicas)
	}

	// Where the pods' names stand, ports of loopback take their place.
	routes := make([]string, replicas)
	for i := range routes {
		name := fmt.Sprintf("nats-%d", i)
		if want := fmt.Sprintf("nats://%s.nats.%s.svc:4222", name, Namespace); !strings.Contains(urls, want) {
			t.Errorf("the programs do not know of %s: %s", want, urls)
		}
		routes[i] = fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
		before := text
		if text = strings.Replace(text, name+".nats:6222", routes[i], 1); text == before {
			t.Errorf("there is no route to %s in %s", name, text)
		}
	}
	var servers []*server.Server
	for i, route := range routes {
		t.Setenv("POD_NAME", fmt.Sprintf("nats-%d", i))
		file := filepath.Join(t.TempDir(), "nats.conf")
		harness.WriteFile(t, file, text)
		options, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if !options.SyncAlways || options.MaxPayload != 8<<20 && options.MaxPayload != 8e6 || options.ServerName != fmt.Sprintf("nats-%d", i) {
			t.Errorf("server %q, sync always %t, max_payload %d", options.ServerName, options.SyncAlways, options.MaxPayload)
		}
		host, port, err := net.SplitHostPort(route)
		if err != nil {
			t.Fatal(err)
		}
		options.Host, options.Port, options.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
		options.Cluster.Host = host
		if _, err := fmt.Sscan(port, &options.Cluster.Port); err != nil {
			t.Fatal(err)
		}
		options.StoreDir, options.NoSigs, options.NoLog = t.TempDir(), true, true
		options.JetStreamMaxStore = 64 << 20
		s, err := server.NewServer(options)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(harness.Patience) {
			t.Fatalf("%s takes no connections", s.Name())
		}
	}
	publish(t, servers[0].ClientURL(), "first")
	servers[2].Shutdown()
	servers[2].WaitForShutdown()
	publish(t, servers[0].ClientURL(), "second")
}

// publish stores a message in a stream of three replicas.
func publish(t *testing.T, url, id string) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "a stream of three replicas takes "+id, func() error {
		stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
		if err != nil {
			return err
		}
		if _, err := js.Publish(t.Context(), "s", nil, jetstream.WithMsgID(id)); err != nil {
			return err
		}
		info, err := stream.Info(t.Context())
		if err != nil {
			return err
		}
		if n := len(info.Cluster.Replicas); n != 2 {
			return fmt.Errorf("the stream has %d replicas beside its leader", n)
		}
		return nil
	})
}
