package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestSourcePolicy holds the delivery policy of a source to what its annotations and its spec say, of which the spec wins.
func TestSourcePolicy(t *testing.T) {
	const manifest = `
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: s, annotations: {%s}}
spec: {bootstrapServers: ["kafka:9092"], topics: [orders], sink: {uri: "http://127.0.0.1/"}, delivery: {%s}}
`
	type policy struct {
		retries              int
		timeout, first, last time.Duration // the pauses after the first attempt and the third
	}
	defaults := policy{10, time.Minute, 200 * time.Millisecond, 800 * time.Millisecond}
	with := func(change func(*policy)) policy {
		p := defaults
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		annotations, delivery string
		want                  policy
	}{
		"none": {"", "", defaults},
		"annotations": {
			`k8s.aliyun.com/retry-count: "5", k8s.aliyun.com/retry-interval: "2", k8s.aliyun.com/req-timeout: "7"`, "",
			policy{5, 7 * time.Second, 2 * time.Second, 2 * time.Second},
		},
		"no retries": {`k8s.aliyun.com/retry-count: "0"`, "", with(func(p *policy) { p.retries = 0 })},
		"spec":       {"", "retry: 3, timeout: PT4S, backoffDelay: PT1S, backoffPolicy: linear", policy{3, 4 * time.Second, time.Second, 3 * time.Second}},
		"both": {
			`k8s.aliyun.com/retry-count: "5", k8s.aliyun.com/retry-interval: "2", k8s.aliyun.com/req-timeout: "7"`,
			"retry: 3, timeout: PT4S, backoffDelay: PT1S, backoffPolicy: linear",
			policy{3, 4 * time.Second, time.Second, 3 * time.Second},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := buildModel(t, fmt.Sprintf(manifest, c.annotations, c.delivery))
			if len(m.sources) != 1 || m.sources[0].reason != "" {
				t.Fatalf("%+v", m.sources)
			}
			p := m.sources[0].policy
			got := policy{p.Retries, p.Timeout, p.Delay(1, 0) * 10 / 9, p.Delay(3, 0) * 10 / 9} // without jitter
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(policy{})); diff != "" {
				t.Errorf("want(-) got(+):\n%s", diff)
			}
		})
	}
}

// TestSourceModel holds what is made of a source's object to its fields.
func TestSourceModel(t *testing.T) {
	const manifest = `
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: s, annotations: {%s}}
spec:
  bootstrapServers: ["kafka:9092"]
  topics: [orders]
  sink: {uri: "http://127.0.0.1/in"}
  %s
`
	for name, c := range map[string]struct {
		annotations, spec string
		holds             func(*sourceModel) bool
	}{
		"plain":        {"", "", func(m *sourceModel) bool { return m.reason == "" && !m.drop && m.dead == nil && m.sink.host == "" }},
		"drop":         {`millrace.dev/undeliverable: drop`, "", func(m *sourceModel) bool { return m.drop }},
		"block":        {`millrace.dev/undeliverable: block`, "", func(m *sourceModel) bool { return !m.drop }},
		"host":         {`k8s.aliyun.com/domain: events.example.com`, "", func(m *sourceModel) bool { return m.sink.host == "events.example.com" }},
		"paused":       {`millrace.dev/paused: "true"`, "", func(m *sourceModel) bool { return m.reason == reasonPaused }},
		"no consumers": {"", "consumers: 0", func(m *sourceModel) bool { return m.reason == reasonPaused }},
		"consumers":    {"", "consumers: 5", func(m *sourceModel) bool { return m.reason == "" }},
		"dead letters": {"", `delivery: {deadLetterSink: {uri: "http://127.0.0.1/dead"}}`, func(m *sourceModel) bool {
			return m.dead != nil && m.dead.url.Path == "/dead" && m.sink.url.Path == "/in"
		}},
		"no mechanism": {"", "net: {sasl: {enable: true, user: {secretKeyRef: {name: k, key: user}}, password: {secretKeyRef: {name: k, key: user}}, type: {secretKeyRef: {name: k, key: type}}}}", func(m *sourceModel) bool {
			return m.reason == reasonSecretInvalid
		}},
		"no certificate": {"", "net: {tls: {enable: true, caCert: {secretKeyRef: {name: k, key: user}}}}", func(m *sourceModel) bool {
			return m.reason == reasonSecretInvalid
		}},
		"no key": {"", "net: {tls: {enable: true, cert: {secretKeyRef: {name: k, key: user}}, key: {secretKeyRef: {name: k, key: user}}}}", func(m *sourceModel) bool {
			return m.reason == reasonSecretInvalid
		}},
	} {
		t.Run(name, func(t *testing.T) {
			const secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {user: alice, type: GSSAPI}\n"
			m := buildModel(t, fmt.Sprintf(manifest, c.annotations, c.spec)+secret)
			if len(m.sources) != 1 || !c.holds(m.sources[0]) {
				t.Errorf("%+v", m.sources[0])
			}
		})
	}
}
