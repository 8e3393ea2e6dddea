package e2esources

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/rocketmq"
	"millrace.dev/pkg/source/sourcetest"
	"millrace.dev/test/harness"
)

// TestRocketMQ does to one RocketMQ what does not harm it.
func TestRocketMQ(t *testing.T) {
	t.Parallel()
	topics, groups := map[string]bool{}, map[string]bool{}
	for n := range 5 {
		topics[fmt.Sprint("contract", n)], groups[fmt.Sprint("contract", n)] = true, true
	}
	for _, name := range []string{"mapped", "filtered", "secure", "strange"} {
		topics[name], groups[name], groups[name+"2"] = false, false, false
	}
	r := StartRocketMQ(t, rocketMQConfig{topics: topics, groups: groups})
	t.Run("contract", func(t *testing.T) { rocketMQContract(t, r) })
	t.Run("mapping", func(t *testing.T) { rocketMQMapping(t, r) })
	t.Run("filter", func(t *testing.T) { rocketMQFilter(t, r) })
	t.Run("TLS", func(t *testing.T) { rocketMQTLS(t, r) })
	t.Run("missing", func(t *testing.T) { rocketMQMissing(t, r) })
	t.Run("malformed", func(t *testing.T) { rocketMQMalformed(t, r) })
}

// system is a topic of a real RocketMQ, and a group that has begun to read it.
type system struct {
	*RocketMQ
	name     string
	producer *Producer
}

func (s system) options() rocketmq.Options {
	return rocketmq.Options{
		Namespace: "default", Name: s.name, Endpoint: s.Endpoint, Topics: []string{s.name}, Group: s.name, FIFO: true,
		Invisible: 10 * time.Second, Drain: time.Second, Logger: slog.New(slog.DiscardHandler),
	}
}

// New implements [sourcetest.System].
func (s system) New(outlet *source.Outlet) source.Source {
	o := s.options()
	o.Outlet = outlet
	return rocketmq.New(o)
}

// Write implements [sourcetest.System].
func (s system) Write(t *testing.T, data ...string) {
	t.Helper()
	for _, d := range data {
		if err := s.producer.Send(t.Context(), s.name, message{body: []byte(d), group: "one"}); err != nil {
			t.Fatal(err)
		}
	}
}

func rocketMQContract(t *testing.T, r *RocketMQ) {
	var mu sync.Mutex
	next := 0
	sourcetest.Run(t, func(t *testing.T) sourcetest.System {
		mu.Lock()
		s := system{r, fmt.Sprint("contract", next), r.Producer(t)}
		next++
		mu.Unlock()
		// A group that is new begins with what is sent from now on.
		o := s.options()
		o.Outlet = source.NewOutlet(source.OutletOptions{Sink: nothing{}, Policy: delivery.DefaultPolicy()})
		begun := rocketmq.New(o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			begun.Run(ctx)
		}()
		harness.Eventually(t, "the group has begun", func() error {
			if status := begun.Status(); !status.Ready {
				return fmt.Errorf("%s: %s", status.Reason, status.Message)
			}
			return nil
		})
		cancel()
		<-done
		return s
	})
}

// nothing is a sink to which nothing comes.
type nothing struct{}

func (nothing) Batch() int { return 1 }

func (nothing) Send(context.Context, []source.Message) (int, error) {
	return 0, fmt.Errorf("an event came where none was sent")
}

// received is a subscriber that keeps requests.
type received struct {
	*httptest.Server
	mu   sync.Mutex
	got  []http.Header
	body []string
}

func newReceived(t *testing.T) *received {
	r := &received{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got, r.body = append(r.got, req.Header.Clone()), append(r.body, string(body))
	}))
	t.Cleanup(r.Close)
	return r
}

// wait waits for so many requests and returns them.
func (r *received) wait(t *testing.T, want int) ([]http.Header, []string) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d events came", want), func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.got) < want {
			return fmt.Errorf("%d", len(r.got))
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got), slices.Clone(r.body)
}

const rocketMQManifest = `
apiVersion: sources.knative.dev/v1alpha1
kind: RocketMQSource
metadata: {name: %[1]s}
spec:
  endpoint: %[2]s
  topics: %[1]s
  consumerGroup: %[1]s
  sink: {uri: "%[3]s"}
%[4]s
`

// startRocketMQSource runs a source of the topic and the group with the name, and waits until it is ready.
func startRocketMQSource(t *testing.T, r *RocketMQ, name, sink, more string) *harness.Server {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "source.yaml")
	harness.WriteFile(t, manifest, fmt.Sprintf(rocketMQManifest, name, r.Endpoint, sink, more))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	s := c.StartSource(t)
	waitSource(t, s, "Ready")
	return s
}

// waitSource waits until the only source of a process has the reason given.
func waitSource(t testing.TB, s *harness.Server, reason string) {
	t.Helper()
	t.Helper()
	harness.Eventually(t, "the source is "+reason, func() error {
		text, err := get(t.Context(), s.Admin+"/metrics")
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(text, "\n") {
			if strings.HasPrefix(line, "millrace_source_ready{") {
				if strings.Contains(line, `reason="`+reason+`"`) {
					return nil
				}
				err = fmt.Errorf("%s", line)
			}
		}
		return err
	})
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// rocketMQMapping holds what a real server hands out to the mapping: what is set by it, and not by the producer, is right too.
func rocketMQMapping(t *testing.T, r *RocketMQ) {
	t.Parallel()
	to := newReceived(t)
	startRocketMQSource(t, r, "mapped", to.URL, "  ceOverrides: {extensions: {team: shop}}\n")
	p := r.Producer(t)
	before := time.Now().Add(-time.Second)
	messages := []message{
		{body: []byte(`{"a":1}`), tag: "gift", keys: []string{"k1", "k2"}, properties: map[string]string{"Room": "r1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
		{body: []byte("<a/>"), properties: map[string]string{"CE_specversion": "1.0", "CE_id": "77", "CE_source": "/shop", "CE_type": "order", "CE_contenttype": "text/xml", "CE_room": "r2"}},
		{body: []byte(`{"specversion":"1.0","id":"78","source":"/shop","type":"order","data":{"b":2}}`), properties: map[string]string{"CE_contenttype": "application/cloudevents+json"}},
	}
	for _, m := range messages {
		if err := p.Send(t.Context(), "mapped", m); err != nil {
			t.Fatal(err)
		}
	}
	headers, bodies := to.wait(t, 3)
	seen := 0
	for i, h := range headers {
		if h.Get("ce-team") != "shop" {
			t.Errorf("the override is missing from %v", h)
		}
		switch h.Get("ce-type") + " " + h.Get("ce-id") {
		case "order 77":
			seen++
			if h.Get("content-type") != "text/xml" || h.Get("ce-room") != "r2" || bodies[i] != "<a/>" {
				t.Errorf("binary event: %v %q", h, bodies[i])
			}
		case "order 78":
			seen++
			if bodies[i] != `{"b":2}` {
				t.Errorf("structured event: %v %q", h, bodies[i])
			}
		default:
			seen++
			for name, want := range map[string]string{
				"ce-type": rocketmq.EventType, "ce-source": "/apis/v1/namespaces/default/rocketmqsources/mapped#mapped", "ce-rocketmqtag": "gift",
				"ce-rocketmqkeys": "k1%20k2", "ce-rocketmqpropertyroom": "r1", "ce-rocketmqattempt": "1", "content-type": "application/json",
				"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			} {
				if h.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, h.Get(name), want)
				}
			}
			born, err := time.Parse(time.RFC3339Nano, h.Get("ce-time"))
			if err != nil || born.Before(before) || born.After(time.Now()) {
				t.Errorf("time %q", h.Get("ce-time"))
			}
			if !strings.HasPrefix(h.Get("ce-id"), "mapped-") || h.Get("ce-rocketmqqueue") == "" || h.Get("ce-rocketmqoffset") == "" {
				t.Errorf("id %q, queue %q, offset %q", h.Get("ce-id"), h.Get("ce-rocketmqqueue"), h.Get("ce-rocketmqoffset"))
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d events of 3: %v", seen, headers)
	}
}

// rocketMQFilter has the server leave out messages: by tag, and by a condition about properties.
func rocketMQFilter(t *testing.T, r *RocketMQ) {
	t.Parallel()
	byTag, bySQL := newReceived(t), newReceived(t)
	startRocketMQSource(t, r, "filtered", byTag.URL, "  filter: {tag: gift||tip}\n")
	manifest := filepath.Join(t.TempDir(), "source.yaml")
	harness.WriteFile(t, manifest, strings.Replace(fmt.Sprintf(rocketMQManifest, "filtered", r.Endpoint, bySQL.URL, "  filter: {sql: price > 5}\n"),
		"consumerGroup: filtered", "consumerGroup: filtered2", 1))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	waitSource(t, c.StartSource(t), "Ready")
	p := r.Producer(t)
	for n := range 20 {
		tag := []string{"gift", "tip", "like", "chat"}[n%4]
		if err := p.Send(t.Context(), "filtered", message{body: fmt.Append(nil, n), tag: tag, properties: map[string]string{"price": fmt.Sprint(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	tagged, _ := byTag.wait(t, 10)
	priced, _ := bySQL.wait(t, 14)
	for _, h := range tagged {
		if tag := h.Get("ce-rocketmqtag"); tag != "gift" && tag != "tip" {
			t.Errorf("a message with tag %q came", tag)
		}
	}
	for _, h := range priced {
		if price := h.Get("ce-rocketmqpropertyprice"); len(price) == 1 && price <= "5" {
			t.Errorf("a message with price %s came", price)
		}
	}
	if len(tagged) != 10 || len(priced) != 14 {
		t.Errorf("%d events by tag, %d by price, want 10 and 14", len(tagged), len(priced))
	}
}

// rocketMQTLS trusts the server's certificate only if a Secret says so.
func rocketMQTLS(t *testing.T, r *RocketMQ) {
	t.Parallel()
	to := newReceived(t)
	manifest := filepath.Join(t.TempDir(), "source.yaml")
	text := fmt.Sprintf(rocketMQManifest, "secure", r.Endpoint, to.URL, "  net: {tls: {enable: true}}\n")
	harness.WriteFile(t, manifest, text)
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	s := c.StartSource(t)
	waitSource(t, s, source.ReasonTLSFailed)
	harness.WriteFile(t, manifest, strings.Replace(text, "{enable: true}", "{enable: true, caCert: {secretKeyRef: {name: rocketmq, key: ca.crt}}}", 1)+
		"---\napiVersion: v1\nkind: Secret\nmetadata: {name: rocketmq}\nstringData:\n  ca.crt: |\n    "+strings.ReplaceAll(r.CA, "\n", "\n    ")+"\n")
	waitSource(t, s, "Ready")
	if err := r.Producer(t).Send(t.Context(), "secure", message{body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	to.wait(t, 1)
}

// rocketMQMissing waits for a topic and a group that are made later, and says so meanwhile.
func rocketMQMissing(t *testing.T, r *RocketMQ) {
	t.Parallel()
	to := newReceived(t)
	manifest := filepath.Join(t.TempDir(), "source.yaml")
	harness.WriteFile(t, manifest, strings.Replace(fmt.Sprintf(rocketMQManifest, "late", r.Endpoint, to.URL, ""), "sink:", "ordering: fifo\n  sink:", 1))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	s := c.StartSource(t)
	waitSource(t, s, rocketmq.ReasonGroupMissing)
	r.Admin(t, "updateSubGroup", "-n", r.names, "-b", r.broker, "-g", "late")
	waitSource(t, s, rocketmq.ReasonGroupNotOrderly)
	r.Admin(t, "updateSubGroup", "-n", r.names, "-b", r.broker, "-g", "late", "-o", "true")
	waitSource(t, s, rocketmq.ReasonTopicMissing)
	r.Admin(t, "updateTopic", "-n", r.names, "-b", r.broker, "-t", "late", "-r", "1", "-w", "1", "-a", "+message.type=FIFO")
	waitSource(t, s, "Ready")
	if err := r.Producer(t).Send(t.Context(), "late", message{body: []byte("x"), group: "one"}); err != nil {
		t.Fatal(err)
	}
	to.wait(t, 1)
}

// strangeMessages are 50 messages that are not what they seem, or more than a Broker takes.
func strangeMessages() []message {
	var all []message
	add := func(body string, properties ...string) {
		m := message{body: []byte(body), properties: map[string]string{}}
		for i := 0; i < len(properties); i += 2 {
			m.properties[properties[i]] = properties[i+1]
		}
		all = append(all, m)
	}
	for _, text := range []string{
		" ", "{", "[]", "null", "7", `"text"`, `{"specversion":"1.0"}`, `{"specversion":"9.9","id":"1","source":"/s","type":"t"}`,
		`{"specversion":"1.0","id":"","source":"/s","type":"t"}`, `{"specversion":"1.0","id":"1","source":"/s","type":"t","Bad Name":"x"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"AA=="}`, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"%"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"yesterday"}`, "\xff\xff", strings.Repeat("[", 20000), `{"specversion":"1.0","id":"1","source":"/s","type":"t","x":{}}`,
	} {
		add(text, "CE_contenttype", "application/cloudevents+json")
	}
	for _, properties := range [][]string{
		{"CE_specversion", "1.0"},
		{"CE_specversion", "2.0", "CE_id", "1", "CE_source", "/s", "CE_type", "t"},
		{"CE_specversion", "1.0", "CE_source", "/s", "CE_type", "t"},
		{"CE_specversion", "1.0", "CE_id", "1", "CE_type", "t"},
		{"CE_specversion", "1.0", "CE_id", "1", "CE_source", "/s"},
		{"CE_specversion", "1.0", "CE_id", "1", "CE_source", "/s", "CE_type", "t", "CE_a b", "x"},
		{"CE_specversion", "1.0", "CE_id", "1", "CE_source", "/s", "CE_type", "t", "CE_time", "never"},
		{"CE_specversion", "1.0", "CE_id", "1", "CE_source", "not a uri", "CE_type", "t"},
		{"CE_contenttype", "application/cloudevents-batch+json"},
		{"CE_contenttype", "application/cloudevents+avro"},
		{"content-type", "nonsense"},
		{"specversion", "1.0"},
		{"data", "x"},
		{"id", "x"},
		{"a b", "x"},
		{"ключ", "значение"},
		{"x", "\u202e"},
		{"x", "a\tb"},
		{"traceparent", "x"},
		{"UPPER", "x", "upper", "y"},
		{strings.Repeat("n", 2000), "x"},
		{"x", strings.Repeat("v", 8000)},
	} {
		add("x", properties...)
	}
	for _, size := range []int{1<<20 + 1, 2 << 20} { // a Broker takes 1 MiB unless it says otherwise
		add(strings.Repeat("l", size))
	}
	for _, tag := range []string{"a b", "é", "|", "*"} {
		all = append(all, message{body: []byte("x"), tag: tag})
	}
	for _, keys := range [][]string{{"é"}, {"a", "a"}, {strings.Repeat("k", 2000)}, {"a", "b", "c"}} {
		all = append(all, message{body: []byte("x"), keys: keys})
	}
	add("\x00")
	add(strings.Repeat("\x80", 3000))
	return all
}

// rocketMQMalformed reads 50 strange messages, each with a good one behind it, into a Broker: all are stored or, where the Broker takes
// no such event, are dead letters.
func rocketMQMalformed(t *testing.T, r *RocketMQ) {
	t.Parallel()
	strange := strangeMessages()
	if len(strange) != 50 {
		t.Fatalf("there are %d messages", len(strange))
	}
	dead, all := newReceived(t), newReceived(t)
	manifest := filepath.Join(t.TempDir(), "source.yaml")
	text := fmt.Sprintf(rocketMQManifest, "strange", r.Endpoint, "", "  delivery: {deadLetterSink: {uri: \""+dead.URL+"\"}}\n")
	text = strings.Replace(text, `sink: {uri: ""}`, "sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}", 1)
	harness.WriteFile(t, manifest, text+`
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec: {broker: b, subscriber: {uri: "`+all.URL+`"}}
`)
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	c.StartFilter(t)
	waitSource(t, c.StartSource(t), "Ready")
	p := r.Producer(t)
	sent := 0
	for i, m := range strange {
		if err := p.Send(t.Context(), "strange", m); err != nil {
			t.Logf("RocketMQ itself does not take message %d: %v", i, err)
		} else {
			sent++
		}
		if err := p.Send(t.Context(), "strange", message{body: []byte("good"), tag: "good"}); err != nil {
			t.Fatal(err)
		}
	}
	harness.Eventually(t, fmt.Sprintf("%d events and dead letters came", sent+len(strange)), func() error {
		all.mu.Lock()
		defer all.mu.Unlock()
		dead.mu.Lock()
		defer dead.mu.Unlock()
		if got := len(all.got) + len(dead.got); got < sent+len(strange) {
			return fmt.Errorf("%d and %d", len(all.got), len(dead.got))
		}
		return nil
	})
	good := 0
	headers, _ := all.wait(t, 1)
	for _, h := range headers {
		if h.Get("ce-rocketmqtag") == "good" {
			good++
		}
	}
	if good != len(strange) || len(dead.got) < 2 {
		t.Errorf("%d good ones of %d came, and %d dead letters", good, len(strange), len(dead.got))
	}
	t.Logf("%d strange messages taken by RocketMQ: %d events, %d dead letters", sent, len(headers)-good, len(dead.got))
}

// TestRocketMQACL runs a source as a user whom the server does not know, then as one who may do nothing, then as one who may read.
func TestRocketMQACL(t *testing.T) {
	t.Parallel()
	r := StartRocketMQ(t, rocketMQConfig{acl: true, topics: map[string]bool{"gifts": false}, groups: map[string]bool{"gifts": false}})
	to := newReceived(t)
	manifest := filepath.Join(t.TempDir(), "source.yaml")
	write := func(net, password string) {
		harness.WriteFile(t, manifest, fmt.Sprintf(rocketMQManifest, "gifts", r.Endpoint, to.URL, net)+
			"---\napiVersion: v1\nkind: Secret\nmetadata: {name: alice}\nstringData: {user: alice, password: "+password+"}\n")
	}
	const credentials = "  net: {credentials: {accessKey: {secretKeyRef: {name: alice, key: user}}, secretKey: {secretKeyRef: {name: alice, key: password}}}}\n"
	write("", "hushhush")
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	s := c.StartSource(t)
	waitSource(t, s, source.ReasonAuthenticationFailed) // it presents no credentials
	r.Admin(t, "createUser", "-n", r.names, "-b", r.broker, "-u", "alice", "-p", "hushhush")
	write(credentials, "wrong")
	waitSource(t, s, source.ReasonAuthenticationFailed)
	write(credentials, "hushhush")
	waitSource(t, s, source.ReasonNotAuthorized)
	r.Admin(t, "createAcl", "-n", r.names, "-b", r.broker, "-s", "User:alice", "-r", "Topic:gifts,Group:gifts", "-a", "Sub", "-d", "Allow")
	waitSource(t, s, "Ready")
	if err := r.Producer(t).Send(t.Context(), "gifts", message{body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	to.wait(t, 1)
	if strings.Contains(s.Out.String(), "hushhush") {
		t.Error("the password is in the log")
	}
}
