package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// knativeFields are the fields that Knative documents of Brokers and Triggers in eventing.knative.dev/v1, with a value for
// each, apart from references and what every object has. Of what is in an array there is one element.
var knativeFields = map[string][]struct {
	path  string
	value any
}{
	"Broker": {
		{"spec.config.apiVersion", "v1"},
		{"spec.config.kind", "ConfigMap"},
		{"spec.config.namespace", "elsewhere"},
		{"spec.config.name", "settings"},
		{"spec.config.address", "a"},
		{"spec.delivery.deadLetterSink.ref.apiVersion", "v1"},
		{"spec.delivery.deadLetterSink.ref.kind", "Service"},
		{"spec.delivery.deadLetterSink.ref.namespace", "elsewhere"},
		{"spec.delivery.deadLetterSink.ref.name", "letters"},
		{"spec.delivery.deadLetterSink.ref.address", "a"},
		{"spec.delivery.deadLetterSink.uri", "/letters"},
		{"spec.delivery.deadLetterSink.CACerts", "certificates"},
		{"spec.delivery.deadLetterSink.audience", "letters"},
		{"spec.delivery.retry", int64(0)},
		{"spec.delivery.timeout", "PT1M"},
		{"spec.delivery.backoffPolicy", "exponential"},
		{"spec.delivery.backoffDelay", "PT0.2S"},
		{"spec.delivery.retryAfterMax", "PT0S"},
		{"spec.delivery.format", "json"},
		{"status.observedGeneration", int64(1)},
		{"status.annotations.bootstrap", "somewhere"},
		{"status.conditions.0.type", "Ready"},
		{"status.conditions.0.status", "False"},
		{"status.conditions.0.reason", "Because"},
		{"status.conditions.0.message", "of that"},
		{"status.conditions.0.lastTransitionTime", "2026-01-02T03:04:05Z"},
		{"status.address.name", "http"},
		{"status.address.url", "http://ingress.example/"},
		{"status.address.CACerts", "certificates"},
		{"status.address.audience", "broker"},
		{"status.addresses.0.name", "http"},
		{"status.addresses.0.url", "http://ingress.example/"},
		{"status.addresses.0.CACerts", "certificates"},
		{"status.addresses.0.audience", "broker"},
		{"status.deadLetterSinkUri", "http://letters.example/"},
		{"status.deadLetterSinkCACerts", "certificates"},
		{"status.deadLetterSinkAudience", "letters"},
		{"status.policies.0.apiVersion", "eventing.knative.dev/v1alpha1"},
		{"status.policies.0.name", "who-may"},
	},
	"Trigger": {
		{"spec.broker", "shop"},
		{"spec.filter.attributes.type", "sent"},
		{"spec.filter.attributes.anyext", ""},
		{"spec.filters.0.exact.type", "sent"},
		{"spec.filters.1.prefix.source", "/shop"},
		{"spec.filters.2.suffix.type", "sent"},
		{"spec.filters.3.cesql", "type = 'sent'"},
		{"spec.filters.4.all.0.exact.type", "sent"},
		{"spec.filters.5.any.0.not.prefix.type", "lost"},
		{"spec.filters.6.not.cesql", "type = 'lost'"},
		{"spec.subscriber.ref.apiVersion", "v1"},
		{"spec.subscriber.ref.kind", "Service"},
		{"spec.subscriber.ref.namespace", "elsewhere"},
		{"spec.subscriber.ref.name", "gifts"},
		{"spec.subscriber.ref.address", "a"},
		{"spec.subscriber.uri", "hook?x=1"},
		{"spec.subscriber.CACerts", "certificates"},
		{"spec.subscriber.audience", "gifts"},
		{"spec.delivery.deadLetterSink.uri", "http://letters.example/"},
		{"spec.delivery.retry", int64(10)},
		{"spec.delivery.timeout", "PT30S"},
		{"spec.delivery.backoffPolicy", "linear"},
		{"spec.delivery.backoffDelay", "PT5S"},
		{"spec.delivery.retryAfterMax", "PT2M"},
		{"spec.delivery.format", "binary"},
		{"status.observedGeneration", int64(1)},
		{"status.annotations.served", "state"},
		{"status.conditions.0.type", "Ready"},
		{"status.conditions.0.status", "Unknown"},
		{"status.conditions.0.reason", "Because"},
		{"status.conditions.0.message", "of that"},
		{"status.conditions.0.lastTransitionTime", "2026-01-02T03:04:05Z"},
		{"status.subscriberUri", "http://gifts.example/"},
		{"status.subscriberCACerts", "certificates"},
		{"status.subscriberAudience", "gifts"},
		{"status.deadLetterSinkUri", "http://letters.example/"},
		{"status.deadLetterSinkCACerts", "certificates"},
		{"status.deadLetterSinkAudience", "letters"},
		{"status.auth.serviceAccountName", "sender"},
		{"status.auth.serviceAccountNames.0", "sender"},
	},
}

// TestKnativeFields has the API server keep every field of Knative's API as it was written, and our types read it.
func TestKnativeFields(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	strict := warned(t)
	for kind, fields := range knativeFields {
		t.Run(kind, func(t *testing.T) {
			want := &unstructured.Unstructured{Object: map[string]any{}}
			want.SetGroupVersionKind(eventingv1.GroupVersion().WithKind(kind))
			want.SetNamespace(namespace)
			want.SetName("everything")
			for _, f := range fields {
				want.Object = put(want.Object, strings.Split(f.path, "."), f.value).(map[string]any)
			}
			got := want.DeepCopy()
			delete(got.Object, "status")
			if err := strict.Create(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			got.Object["status"] = want.Object["status"]
			if err := strict.Status().Update(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			for _, f := range fields {
				if value := get(got.Object, strings.Split(f.path, ".")); value != f.value {
					t.Errorf("%s reads %v, was written %v", f.path, value, f.value)
				}
			}
			// Our own types know each field by its name, too.
			typed := map[string]client.Object{"Broker": &eventingv1.Broker{}, "Trigger": &eventingv1.Trigger{}}[kind]
			if err := kube.Client.Get(t.Context(), client.ObjectKeyFromObject(got), typed); err != nil {
				t.Fatal(err)
			}
			var decoded map[string]any
			if err := json.Unmarshal([]byte(asJSON(t, typed)), &decoded); err != nil {
				t.Fatal(err)
			}
			for _, f := range fields {
				if value := get(decoded, strings.Split(f.path, ".")); fmt.Sprint(value) != fmt.Sprint(f.value) {
					t.Errorf("the Go type reads %s as %v, was written %v", f.path, value, f.value)
				}
			}
		})
	}
}

// put puts a value into nested maps and arrays, whose indexes are numbers in the path and come in order.
func put(into any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	index := strings.Index("0123456789", path[0])
	if index < 0 {
		m, _ := into.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		m[path[0]] = put(m[path[0]], path[1:], value)
		return m
	}
	list, _ := into.([]any)
	if index == len(list) {
		list = append(list, nil)
	}
	list[index] = put(list[index], path[1:], value)
	return list
}

// get returns what put put there, nil if it is not there.
func get(from any, path []string) any {
	for _, name := range path {
		switch x := from.(type) {
		case map[string]any:
			from = x[name]
		case []any:
			index := strings.Index("0123456789", name)
			if index < 0 || index >= len(x) {
				return nil
			}
			from = x[index]
		default:
			return nil
		}
	}
	return from
}

// TestUnknownFields has the API server refuse fields that nobody knows where the client asks for that, as kubectl does,
// and drop them where it does not. Below all, any and not it can see none; there they are a mistake that status tells of.
func TestUnknownFields(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	const text = `{apiVersion: eventing.knative.dev/v1, kind: Trigger, metadata: {name: typo},
		spec: {broker: b, subscriber: {uri: 'http://x.example', hedge: 1}, delivery: {retries: 3}, filters: [{exact: {type: a}}], filers: []}}`
	o := cluster.Decode(t, text)[0]
	o.SetNamespace(namespace)
	err := warned(t).Create(t.Context(), o.DeepCopy())
	for _, field := range []string{"spec.subscriber.hedge", "spec.delivery.retries", "spec.filers"} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("unknown field %q", field)) {
			t.Errorf("a client that wants to know of unknown fields is told %v, want %s in it", err, field)
		}
	}
	if err := kube.Client.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	const want = `{"broker":"b","delivery":{},"filter":{},"filters":[{"exact":{"type":"a"}}],"subscriber":{"uri":"http://x.example"}}`
	if got := asJSON(t, o.Object["spec"]); got != want {
		t.Errorf("the spec reads %s, want %s", got, want)
	}
}

// openAPISchema is the part of an OpenAPI v3 schema that kubectl explain goes by.
type openAPISchema struct {
	Description          string
	Properties           map[string]openAPISchema
	Items                *openAPISchema
	AdditionalProperties json.RawMessage
	AllOf                []struct {
		Ref string `json:"$ref"`
	}
	Ref string `json:"$ref"`
}

// TestEveryFieldIsExplained reads what the API server publishes for kubectl explain, of all our kinds.
func TestEveryFieldIsExplained(t *testing.T) {
	needsCluster(t)
	for group, kinds := range map[string][]string{
		"eventing.knative.dev/v1": {"Broker", "Trigger"},
		"sources.knative.dev/v1":  {"KafkaSource"},
	} {
		t.Run(group, func(t *testing.T) {
			var document struct {
				Components struct{ Schemas map[string]json.RawMessage }
			}
			harness.Eventually(t, "the schemas are published", func() error { // a while after the CRDs are applied
				text, err := tryKubectl(t, "get", "--raw", "/openapi/v3/apis/"+group)
				if err != nil {
					return err
				}
				if err := json.Unmarshal([]byte(text), &document); err != nil {
					return err
				}
				if len(document.Components.Schemas) == 0 {
					return errors.New("there are none")
				}
				return nil
			})
			fields := 0
			for name, raw := range document.Components.Schemas {
				kind := name[strings.LastIndex(name, ".")+1:]
				if !slices.Contains(kinds, kind) {
					continue
				}
				var schema openAPISchema
				if err := json.Unmarshal(raw, &schema); err != nil {
					t.Fatal(err)
				}
				fields += checkExplained(t, kind, schema)
			}
			if want := 40 * len(kinds); fields < want {
				t.Errorf("found %d fields, want at least %d", fields, want)
			}
		})
	}
}

// checkExplained reports the fields without a description, and returns how many fields there are. What a schema refers to is
// Kubernetes' own.
func checkExplained(t *testing.T, path string, s openAPISchema) int {
	t.Helper()
	if s.Ref == "" && len(s.AllOf) == 0 && s.Description == "" {
		t.Errorf("kubectl explain says nothing of %s", path)
	}
	fields := 1
	for name, child := range s.Properties {
		fields += checkExplained(t, path+"."+name, child)
	}
	for _, inner := range []json.RawMessage{s.AdditionalProperties, itemsOf(t, s)} {
		var child openAPISchema
		if len(inner) == 0 || json.Unmarshal(inner, &child) != nil { // additionalProperties may be a mere true
			continue
		}
		for name, grandchild := range child.Properties {
			fields += checkExplained(t, path+"."+name, grandchild)
		}
	}
	return fields
}

func itemsOf(t *testing.T, s openAPISchema) json.RawMessage {
	t.Helper()
	if s.Items == nil {
		return nil
	}
	return json.RawMessage(asJSON(t, s.Items))
}
