package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"millrace.dev/test/harness"
)

const sourceManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: large}
spec:
  broker: b
  filters: [{cel: 'data.total > 90'}]
  subscriber: {uri: %[1]s/large}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: b
  subscriber: {uri: %[1]s/all}
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: orders}
spec:
  bootstrapServers: [%[2]s]
  topics: [orders]
  initialOffset: earliest
  net:
    sasl:
      enable: true
      user: {secretKeyRef: {name: kafka, key: user}}
      password: {secretKeyRef: {name: kafka, key: password}}
  sink:
    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}
`

const secretManifest = `
apiVersion: v1
kind: Secret
metadata: {name: kafka}
stringData: {user: alice, password: %s}
`

// startKafka returns the address of a Kafka cluster in the process and how to write to it. With a password it wants that
// of alice.
func startKafka(t *testing.T, password string, opts ...kfake.Opt) (address string, produce func(topic string, records ...*kgo.Record)) {
	t.Helper()
	var login []kgo.Opt
	if password != "" {
		opts = append(opts, kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", password))
		login = append(login, kgo.SASL(plain.Auth{User: "alice", Pass: password}.AsMechanism()))
	}
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(append(login, kgo.SeedBrokers(c.ListenAddrs()...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return c.ListenAddrs()[0], func(topic string, records ...*kgo.Record) {
		for _, r := range records {
			r.Topic = topic
		}
		if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// numbered returns records with totals from first to last.
func numbered(first, last int) []*kgo.Record {
	var records []*kgo.Record
	for n := first; n <= last; n++ {
		records = append(records, &kgo.Record{Key: []byte(strconv.Itoa(n)), Value: fmt.Appendf(nil, `{"total":%d}`, n)})
	}
	return records
}

// TestKafkaToTriggers has records go through a Broker to Triggers that look into their data, once each, across a correction
// of the password, a restart and a change of the source.
func TestKafkaToTriggers(t *testing.T) {
	address, produce := startKafka(t, "hush", kfake.SeedTopics(2, "orders"))
	ledger := harness.NewLedger(t)
	dir, data := t.TempDir(), t.TempDir()
	manifest := fmt.Sprintf(sourceManifest, ledger.URL, address)
	harness.WriteFile(t, filepath.Join(dir, "all.yaml"), manifest)
	harness.WriteFile(t, filepath.Join(dir, "secret.yaml"), fmt.Sprintf(secretManifest, "loud"))
	dev := harness.StartDev(t, data, dir)
	waitOutput(t, dev, "Source  default/orders                   Not ready  Unreachable")
	if strings.Contains(dev.Out.String(), "loud") {
		t.Error("the password was printed")
	}
	harness.WriteFile(t, filepath.Join(dir, "secret.yaml"), fmt.Sprintf(secretManifest, "hush"))
	waitOutput(t, dev, "Source  default/orders                   Ready      -> Broker default/b")

	produce("orders", numbered(1, 100)...)
	ledger.WaitQuiet(t, 110, 300*time.Millisecond)
	if large := ledger.Path("/large"); len(large) != 10 {
		t.Errorf("%d events passed the filter, want 10", len(large))
	}
	harness.Eventually(t, "the lag is 0", func() error {
		metrics := get(t, dev.Admin+"/metrics")
		for _, line := range []string{
			`millrace_source_lag{kind="KafkaSource",source="default/orders"} 0`, `millrace_source_assigned{kind="KafkaSource",source="default/orders"} 2`,
			`millrace_source_events_total{kind="KafkaSource",outcome="sent",source="default/orders"} 100`,
			`millrace_source_ready{kind="KafkaSource",reason="Ready",source="default/orders"} 1`,
		} {
			if !strings.Contains(metrics, line) {
				return fmt.Errorf("metrics lack %s", line)
			}
		}
		return nil
	})

	dev.Stop(t)
	produce("orders", numbered(101, 150)...)
	dev = harness.StartDev(t, data, dir)
	ledger.WaitQuiet(t, 110+100, 300*time.Millisecond)

	harness.WriteFile(t, filepath.Join(dir, "all.yaml"), strings.Replace(manifest, "metadata: {name: orders}", `metadata: {name: orders, annotations: {millrace.dev/paused: "true"}}`, 1))
	waitOutput(t, dev, "Source  default/orders                   Not ready  Paused")
	produce("orders", numbered(151, 160)...)
	harness.WriteFile(t, filepath.Join(dir, "all.yaml"), manifest)
	ledger.WaitQuiet(t, 210+20, 300*time.Millisecond)
	for path, want := range map[string]int{"/all": 160, "/large": 70} {
		seen := ledger.Path(path)
		if len(seen) != want {
			t.Errorf("%s has %d events, want %d", path, len(seen), want)
		}
		for id, times := range seen {
			if times != 1 {
				t.Errorf("%s: event %s came %d times", path, id, times)
			}
		}
	}
}

func waitOutput(t *testing.T, dev *harness.Dev, text string) {
	t.Helper()
	harness.Eventually(t, "dev mode prints "+text, func() error {
		if !strings.Contains(dev.Out.String(), text) {
			return fmt.Errorf("it printed %s", dev.Out)
		}
		return nil
	})
}

// userManifest is one of a real user, but for the addresses and initialOffset.
const userManifest = `
apiVersion: sources.knative.dev/v1alpha1
kind: KafkaSource
metadata:
  name: kafka-source
  annotations:
    k8s.aliyun.com/domain: event-display.default.example.com
    k8s.aliyun.com/retry-count: "5"
    k8s.aliyun.com/retry-interval: "2"
    k8s.aliyun.com/req-timeout: "60"
spec:
  consumerGroup: demo-consumer
  bootstrapServers: %[1]s,%[1]s
  topics: demo
  sink:
    uri: %[2]s
`

// TestKafkaToGateway has records posted to a gateway that routes by the Host header and fails at first.
func TestKafkaToGateway(t *testing.T) {
	address, produce := startKafka(t, "", kfake.SeedTopics(1, "demo"))
	var mu sync.Mutex
	var got []string
	tries := 0
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got = append(got, r.Host+" "+r.Header.Get("Ce-Type")+" "+r.Header.Get("Ce-Source")+" "+string(body))
	}))
	t.Cleanup(gateway.Close)
	dir := t.TempDir()
	harness.WriteFile(t, filepath.Join(dir, "source.yaml"), fmt.Sprintf(userManifest, address, gateway.URL))
	dev := harness.StartDev(t, t.TempDir(), dir)
	waitOutput(t, dev, "Source  default/kafka-source             Ready      -> "+gateway.URL)
	produce("demo", &kgo.Record{Value: []byte("one")}, &kgo.Record{Value: []byte("two")})
	const prefix = "event-display.default.example.com dev.knative.kafka.event /apis/v1/namespaces/default/kafkasources/kafka-source#demo "
	harness.Eventually(t, "the gateway has both", func() error {
		mu.Lock()
		defer mu.Unlock()
		if want := prefix + "one\n" + prefix + "two"; strings.Join(got, "\n") != want {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
}

const fieldsManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: sources.knative.dev/v1beta1
kind: KafkaSource
metadata:
  name: fields
  labels: {kafkasources.sources.knative.dev/key-type: int}
  annotations: {millrace.dev/undeliverable: drop}
spec:
  consumers: 2
  bootstrapServers: [%[1]s]
  topics: [orders, payments]
  consumerGroup: mine
  initialOffset: earliest
  ordering: key
  delivery:
    retry: 0
    deadLetterSink: {uri: "%[2]s/dead"}
  ceOverrides: {extensions: {team: shop}}
  sink: {uri: "%[2]s/in"}
`

// TestKafkaFields has every field of a KafkaSource that is not about the connection show in what is delivered.
func TestKafkaFields(t *testing.T) {
	address, produce := startKafka(t, "", kfake.SeedTopics(1, "orders", "payments"))
	var mu sync.Mutex
	var got, dead []string
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := strings.Join([]string{r.Header.Get("Ce-Source"), r.Header.Get("Ce-Key"), r.Header.Get("Ce-Team"), string(body)}, " ")
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/dead" && string(body) == "lost":
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/dead":
			dead = append(dead, line)
		case string(body) == "good":
			got = append(got, line)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(sink.Close)
	key := []byte{0, 0, 0, 7}
	produce("orders", &kgo.Record{Key: key, Value: []byte("good")}, &kgo.Record{Key: key, Value: []byte("bad")})
	produce("payments", &kgo.Record{Key: key, Value: []byte("lost")}, &kgo.Record{Key: key, Value: []byte("good")})
	dir := t.TempDir()
	harness.WriteFile(t, filepath.Join(dir, "source.yaml"), fmt.Sprintf(fieldsManifest, address, sink.URL))
	dev := harness.StartDev(t, t.TempDir(), dir)
	harness.Eventually(t, "all records are dealt with", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 2 || len(dead) != 1 {
			return fmt.Errorf("the sink has %q and the dead letter sink %q\n%s", got, dead, dev.Out)
		}
		return nil
	})
	const from = "/apis/v1/namespaces/default/kafkasources/fields#"
	slices.Sort(got)
	if want := []string{from + "orders 7 shop good", from + "payments 7 shop good"}; !slices.Equal(got, want) || dead[0] != from+"orders 7 shop bad" {
		t.Errorf("the sink has %q and the dead letter sink %q", got, dead)
	}
	if metrics := get(t, dev.Admin+"/metrics"); !strings.Contains(metrics, `outcome="dropped",source="default/fields"} 1`) {
		t.Errorf("the record that nobody takes is not counted:\n%s", metrics)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	harness.Eventually(t, "the offsets of the group are committed", func() error {
		offsets, err := kadm.NewClient(client).FetchOffsets(t.Context(), "mine")
		for _, topic := range []string{"orders", "payments"} {
			if o, _ := offsets.Lookup(topic, 0); err == nil && o.At != 2 {
				return fmt.Errorf("%s: %d", topic, o.At)
			}
		}
		return err
	})
}
