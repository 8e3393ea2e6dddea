package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/app"
	kubesource "millrace.dev/internal/objects/kube"
	"millrace.dev/test/harness"
)

// startSources runs sources with the rights that they are installed with, until the test ends or stop is called.
func (w *world) startSources(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.start(t, "broker-source", kubesource.NewSources, func(whole context.Context, o app.Options) error {
		defer close(done)
		context.AfterFunc(whole, cancel)
		return app.RunSources(ctx, o)
	})
	return func() { cancel(); <-done }
}

// kafkaCluster is a Kafka in the process.
type kafkaCluster struct {
	servers string
	cluster *kfake.Cluster
	client  *kgo.Client
}

func startKafka(t *testing.T, opts ...kfake.Opt) *kafkaCluster {
	t.Helper()
	c, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	k := &kafkaCluster{servers: strings.Join(c.ListenAddrs(), ","), cluster: c}
	if k.client, err = kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.client.Close)
	return k
}

func (k *kafkaCluster) write(t *testing.T, topic string, values ...string) {
	t.Helper()
	for _, value := range values {
		if err := k.client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// askFor has the servers take these credentials of mechanism PLAIN and no others. What kfake itself does with others is to hang up.
func (k *kafkaCluster) askFor(t *testing.T, credentials string) {
	t.Helper()
	k.cluster.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.cluster.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		answer.SupportedMechanisms = []string{"PLAIN"}
		return answer, nil, true
	})
	k.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.cluster.KeepControl()
		answer := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes) != credentials {
			answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		}
		return answer, nil, true
	})
}

// committed is the group's offset in partition 0.
func (k *kafkaCluster) committed(t *testing.T, group, topic string) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(k.client).FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	at, ok := offsets.Lookup(topic, 0)
	if !ok {
		return -1
	}
	return at.At
}

// hostSink notes which Host header and path it was posted to.
type hostSink struct {
	*httptest.Server
	mu  sync.Mutex
	got []string
}

func startHostSink(t *testing.T) *hostSink {
	t.Helper()
	s := &hostSink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, r.Host+" "+r.Header.Get("Ce-Id"))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *hostSink) wait(t *testing.T, want string) {
	t.Helper()
	harness.Eventually(t, "the sink has "+want, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if got := strings.Join(s.got, ","); got != want {
			return errors.New("it has " + got)
		}
		return nil
	})
}

func (w *world) source(t *testing.T, name string) *sourcesv1.KafkaSource {
	t.Helper()
	s := &sourcesv1.KafkaSource{}
	if err := kube.Client.Get(t.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// waitSource waits until a condition is as wanted: status, reason, and a part of the message.
func (w *world) waitSource(t *testing.T, name, condition string, want ...string) *sourcesv1.KafkaSource {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("KafkaSource %s is %s %v", name, condition, want), func() error {
		return conditionIs(&w.source(t, name).Status.Status, condition, want)
	})
	return w.source(t, name)
}

func (w *world) patchSource(t *testing.T, name, patch string) {
	t.Helper()
	if err := kube.Client.Patch(t.Context(), w.source(t, name), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// theirManifest is that of a user, with strings where later versions have lists.
const theirManifest = `
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
  bootstrapServers: 192.168.7.113:9092,192.168.7.110:9092,192.168.7.108:9092
  topics: demo
  sink:
    uri: http://101.200.177.84
`

// TestManifestOfOldVersion applies it with kubectl as it is, and then, with other addresses, has it work.
func TestManifestOfOldVersion(t *testing.T) {
	w := startWorld(t)
	w.startSources(t)
	kafka := startKafka(t, kfake.SeedTopics(1, "demo"))
	sink := startHostSink(t)

	manifest := t.TempDir() + "/source.yaml"
	harness.WriteFile(t, manifest, theirManifest)
	kubectl(t, "apply", "-n", w.namespace, "-f", manifest)
	s := w.waitSource(t, "kafka-source", "SinkProvided", "True")
	if got := deref(s.Status.SinkURI); got != "http://101.200.177.84" {
		t.Errorf("sinkUri %s", got)
	}
	harness.Eventually(t, "it is tried", func() error {
		s := w.source(t, "kafka-source")
		if s.Status.Consumption == nil || s.Status.Consumption.Processes != 1 {
			return fmt.Errorf("consumption is %+v", s.Status.Consumption)
		}
		return nil
	})
	for _, version := range sourcesv1.Versions() {
		out := kubectl(t, "get", "kafkasources."+version+".sources.knative.dev", "-n", w.namespace, "kafka-source")
		if header := strings.Join(strings.Fields(strings.SplitN(out, "\n", 2)[0]), " "); header != "NAME TOPICS BOOTSTRAPSERVERS READY REASON AGE" {
			t.Errorf("%s: got columns %q", version, header)
		}
		if !strings.Contains(out, " demo ") {
			t.Errorf("%s: got %q", version, out)
		}
	}

	harness.WriteFile(t, manifest, strings.NewReplacer(
		"192.168.7.113:9092,192.168.7.110:9092,192.168.7.108:9092", kafka.servers, "http://101.200.177.84", sink.URL,
	).Replace(theirManifest))
	kubectl(t, "apply", "-n", w.namespace, "-f", manifest)
	s = w.waitSource(t, "kafka-source", ready, "True")
	if len(s.Finalizers) > 0 || s.Status.ConsumerGroup != "demo-consumer" {
		t.Errorf("finalizers %v, group %q", s.Finalizers, s.Status.ConsumerGroup)
	}
	kafka.write(t, "demo", "{}")
	sink.wait(t, "event-display.default.example.com partition:0/offset:0")
	harness.Eventually(t, "the offset is committed", func() error {
		if got := kafka.committed(t, "demo-consumer", "demo"); got != 1 {
			return fmt.Errorf("it is %d", got)
		}
		return nil
	})
	harness.Eventually(t, "the change is told in an Event", func() error {
		if out := kubectl(t, "get", "events", "-n", w.namespace); !strings.Contains(out, "kafkasource/kafka-source") || !strings.Contains(out, "The object is ready.") {
			return errors.New(out)
		}
		return nil
	})

	// Deleted, it leaves the group its offsets, and goes on there when it is back.
	kubectl(t, "delete", "-n", w.namespace, "-f", manifest)
	harness.Eventually(t, "the group has no members", func() error {
		groups, err := kadm.NewClient(kafka.client).DescribeGroups(t.Context(), "demo-consumer")
		if err == nil && len(groups["demo-consumer"].Members) > 0 {
			err = fmt.Errorf("it has %v", groups["demo-consumer"].Members)
		}
		return err
	})
	kafka.write(t, "demo", "{}")
	kubectl(t, "apply", "-n", w.namespace, "-f", manifest)
	sink.wait(t, "event-display.default.example.com partition:0/offset:0,event-display.default.example.com partition:0/offset:1")
}

func kafkaSourceYAML(name, servers, spec string) string {
	return "{apiVersion: sources.knative.dev/v1, kind: KafkaSource, metadata: {name: " + name + "}, spec: {bootstrapServers: ['" +
		strings.ReplaceAll(servers, ",", "','") + "'], " + spec + "}}\n---\n"
}

// TestSourceIntoBroker has records become events of a Broker, through a pause and the end of the process.
func TestSourceIntoBroker(t *testing.T) {
	w := startWorld(t)
	kafka := startKafka(t, kfake.SeedTopics(1, "orders"))
	ledger := harness.NewLedger(t)
	kube.Apply(t, w.namespace, triggerYAML("all", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/all'}}")+
		kafkaSourceYAML("orders", kafka.servers, "topics: [orders], sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: shop}}"))
	w.waitSource(t, "orders", ready, "False", sourcesv1.ReasonSinkUnresolved, "there is no Broker "+w.namespace+"/shop")
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}"))
	w.waitTrigger(t, "all", ready, "True")
	w.waitSource(t, "orders", ready, "False", sourcesv1.ReasonNoSourceProcess, "StatefulSet broker-source")

	stop := w.startSources(t)
	s := w.waitSource(t, "orders", ready, "True")
	if want := "http://broker-ingress." + w.system + ".svc.cluster.local/" + w.namespace + "/shop"; deref(s.Status.SinkURI) != want {
		t.Errorf("sinkUri %s, want %s", deref(s.Status.SinkURI), want)
	}
	group := "knative-kafka-source-" + string(s.UID)
	if s.Status.ConsumerGroup != group {
		t.Errorf("group %q, want %q", s.Status.ConsumerGroup, group)
	}
	kafka.write(t, "orders", `{"n": 1}`, `{"n": 2}`)
	ledger.WaitQuiet(t, 2, 0)

	// The group cannot be changed, not even where none was written.
	err := kube.Client.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(`{"spec": {"consumerGroup": "other"}}`)))
	if err == nil || !strings.Contains(err.Error(), "spec.consumerGroup cannot be changed") {
		t.Errorf("another group: %v", err)
	}
	w.patchSource(t, "orders", `{"spec": {"consumerGroup": "`+group+`"}}`)
	w.waitSource(t, "orders", ready, "True")

	w.patchSource(t, "orders", `{"metadata": {"annotations": {"millrace.dev/paused": "true"}}}`)
	w.waitSource(t, "orders", ready, "False", "Paused", "millrace.dev/paused")
	kafka.write(t, "orders", `{"n": 3}`)
	w.patchSource(t, "orders", `{"metadata": {"annotations": {"millrace.dev/paused": null}}}`)
	w.waitSource(t, "orders", ready, "True")
	ledger.WaitQuiet(t, 3, 0)

	// Two processes share the work, and one that ends takes nothing from the source's being ready.
	w.startSources(t)
	harness.Eventually(t, "both processes are known", func() error {
		if c := w.source(t, "orders").Status.Consumption; c == nil || c.Processes != 2 || c.Assigned != 1 {
			return fmt.Errorf("consumption is %+v", c)
		}
		return nil
	})
	stop()
	kafka.write(t, "orders", `{"n": 4}`)
	ledger.WaitQuiet(t, 4, 0)
	w.waitSource(t, "orders", ready, "True")
}

// TestSourceReasons has the process find what is wrong, and the status say so.
func TestSourceReasons(t *testing.T) {
	w := startWorld(t)
	w.startSources(t)
	kafka := startKafka(t, kfake.SeedTopics(1, "there"))
	sink := "sink: {uri: 'http://127.0.0.1:1/'}"
	kube.Apply(t, w.namespace, kafkaSourceYAML("no-topic", kafka.servers, "topics: [there, missing], "+sink)+
		kafkaSourceYAML("nobody", "127.0.0.1:1", "topics: [there], "+sink)+
		kafkaSourceYAML("denied", "169.254.169.254:9092", "topics: [there], "+sink)+
		kafkaSourceYAML("refused", kafka.servers, "topics: [there], initialOffset: earliest, delivery: {retry: 3, backoffDelay: PT1M}, "+sink))
	w.waitSource(t, "no-topic", ready, "False", "TopicMissing", "waiting for topics that do not exist: missing")
	w.waitSource(t, "nobody", ready, "False", "Unreachable", "spec.bootstrapServers")
	w.waitSource(t, "denied", ready, "False", "AddressDenied", "169.254.169.254")

	// A sink that refuses is told of beside a source that is ready.
	kafka.write(t, "there", "{}")
	w.waitSource(t, "refused", ready, "True")
	harness.Eventually(t, "the sink's refusal is in the status", func() error {
		c := w.source(t, "refused").Status.Consumption
		if c == nil || c.Lag != 1 || c.Waiting != 1 || !strings.Contains(c.LastError, "127.0.0.1:1") || c.LastErrorTime == nil {
			return fmt.Errorf("consumption is %+v", c)
		}
		return nil
	})
}

// TestSourceFollowsItsSecret has a Secret come late and wrong, and corrected.
func TestSourceFollowsItsSecret(t *testing.T) {
	w := startWorld(t)
	w.startSources(t)
	kafka := startKafka(t, kfake.SeedTopics(1, "orders"))
	kafka.askFor(t, "\x00alice\x00right")
	secret := func(password string) string {
		return "{apiVersion: v1, kind: Secret, metadata: {name: kafka}, stringData: {user: alice, password: " + password + ", other: kept}}\n---\n"
	}
	kube.Apply(t, w.namespace, kafkaSourceYAML("orders", kafka.servers, `topics: [orders], sink: {uri: 'http://127.0.0.1:1/'}, net: {sasl: {enable: true,
		user: {secretKeyRef: {name: kafka, key: user}}, password: {secretKeyRef: {name: kafka, key: password}}}}`))
	w.waitSource(t, "orders", ready, "False", sourcesv1.ReasonSecretNotReadable, "permit it in namespace "+w.namespace)
	kube.Apply(t, w.namespace, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: millrace-source-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: millrace-source-secrets}
subjects: [{kind: ServiceAccount, name: broker-source, namespace: `+w.system+`}]
`)
	w.waitSource(t, "orders", ready, "False", sourcesv1.ReasonSecretMissing, "there is no Secret "+w.namespace+"/kafka with the key")
	kube.Apply(t, w.namespace, secret("wrong"))
	s := w.waitSource(t, "orders", ready, "False", "AuthenticationFailed")
	if text := asJSON(t, s.Status); strings.Contains(text, "wrong") {
		t.Errorf("the status tells the password: %s", text)
	}
	kube.Apply(t, w.namespace, secret("right"))
	w.waitSource(t, "orders", ready, "True")
}
