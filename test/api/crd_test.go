package api

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// everything uses each field of a spec that can be set together with the others.
const everything = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata:
  name: everything
  annotations: {eventing.knative.dev/broker.class: Millrace}
spec:
  config: {apiVersion: v1, kind: ConfigMap, namespace: elsewhere, name: settings, address: a}
  delivery:
    deadLetterSink:
      ref: {apiVersion: v1, kind: Service, namespace: elsewhere, name: dead, address: a}
      uri: /letters
      CACerts: certificates
      audience: dead
    retry: 0
    timeout: PT1M30.5S
    backoffPolicy: linear
    backoffDelay: P1DT2H
    retryAfterMax: PT0S
    format: json
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: everything}
spec:
  broker: everything
  filter:
    attributes: {type: gift.sent, myext: ""}
    cel: data.value > 5
  filters:
  - exact: {type: gift.sent}
  - prefix: {source: /shop/}
  - suffix: {type: .sent}
  - cesql: type LIKE 'gift.%'
  - cel: ce.type == "gift.sent"
  - attributes: {subject: ""}
  - sourceAndType: {source: /shop/oslo, type: gift.sent}
  - all: [{exact: {type: gift.sent}}, {any: [{cel: "true"}, {not: {prefix: {type: x}}}]}]
  - any: [{exact: {type: gift.sent}}]
  - not: {exact: {type: gift.lost}}
  subscriber:
    ref: {apiVersion: serving.knative.dev/v1, kind: Service, namespace: elsewhere, name: gifts, address: a}
    uri: hook?x=1
    CACerts: certificates
    audience: gifts
  delivery: {retry: 3, backoffPolicy: exponential, backoffDelay: PT0.2S, format: binary}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: other-namespace}
spec:
  brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, namespace: elsewhere, name: everything}
  subscriber: {uri: "bad://nobody"}
`

// TestEverySpecIsStoredAsWritten applies objects that use every field and reads them back: nothing is refused, pruned or
// rewritten.
func TestEverySpecIsStoredAsWritten(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	kube.Apply(t, namespace, everything)
	for _, want := range cluster.Decode(t, everything) {
		got := want.DeepCopy()
		if err := kube.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: want.GetName()}, got); err != nil {
			t.Fatal(err)
		}
		wantSpec, gotSpec := want.Object["spec"].(map[string]any), got.Object["spec"].(map[string]any)
		if want.GetKind() == eventingv1.KindTrigger && wantSpec["filter"] == nil {
			wantSpec["filter"] = map[string]any{} // the default
		}
		if got, want := asJSON(t, gotSpec), asJSON(t, wantSpec); got != want {
			t.Errorf("stored %s, want %s", got, want)
		}
	}
}

// TestInvalidSpecsAreRefused has the mistakes that the API server can see, each with what it must say.
func TestInvalidSpecsAreRefused(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	long := strings.Repeat("a", 64)
	broker := func(spec string) string {
		return "{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: b}, spec: " + spec + "}"
	}
	trigger := func(spec string) string {
		return "{apiVersion: eventing.knative.dev/v1, kind: Trigger, metadata: {name: t}, spec: " + spec + "}"
	}
	subscribed := func(spec string) string {
		return trigger("{broker: b, subscriber: {uri: 'http://x.y.svc'}, " + spec + "}")
	}
	delivered := func(delivery string) string { return broker("{delivery: {" + delivery + "}}") }
	for name, c := range map[string]struct{ object, message string }{
		"long broker name":       {`{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: ` + long + `}}`, "metadata.name must have at most 63 characters"},
		"long trigger name":      {`{apiVersion: eventing.knative.dev/v1, kind: Trigger, metadata: {name: ` + long + `}, spec: {broker: b, subscriber: {uri: 'http://x'}}}`, "metadata.name must have at most 63 characters"},
		"no broker":              {trigger(`{subscriber: {uri: 'http://x.y.svc'}}`), "write broker, the name of the Broker whose events are wanted"},
		"two brokers":            {subscribed(`brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}`), "broker and brokerRef cannot be given together"},
		"broker of another kind": {trigger(`{brokerRef: {kind: Service, name: b}, subscriber: {uri: 'http://x.y.svc'}}`), "brokerRef.kind must be Broker"},
		"no subscriber":          {trigger(`{broker: b}`), "spec.subscriber: Required value"},
		"empty subscriber":       {trigger(`{broker: b, subscriber: {}}`), "write ref (kind and name of a Service or another addressable object) or uri"},
		"relative subscriber":    {trigger(`{broker: b, subscriber: {uri: /hook}}`), "uri must be an absolute URL"},
		"host without scheme":    {trigger(`{broker: b, subscriber: {uri: 'gifts.default.svc:8080'}}`), "uri must be an absolute URL"},
		"whole URL beside ref":   {trigger(`{broker: b, subscriber: {ref: {kind: Service, name: s}, uri: 'http://x.y.svc'}}`), "uri is a whole URL: beside a ref write a path"},
		"ref without version":    {trigger(`{broker: b, subscriber: {ref: {kind: Channel, name: s}}}`), "write apiVersion, the group and version of the kind"},
		"ref without name":       {trigger(`{broker: b, subscriber: {ref: {kind: Service, name: ""}}}`), "spec.subscriber.ref.name"},
		"two dialects":           {subscribed(`filters: [{exact: {type: a}, prefix: {type: a}}]`), "spec.filters[0]: Too many: 2"},
		"empty element":          {subscribed(`filters: [{}]`), "should have at least 1 properties"},
		"empty value":            {subscribed(`filters: [{exact: {type: ""}}]`), "write a value for every attribute"},
		"no attribute":           {subscribed(`filters: [{suffix: {}}]`), "should have at least 1 properties"},
		"attribute name":         {subscribed(`filters: [{prefix: {My-Ext: a}}]`), "attribute names are made of lower-case letters and digits"},
		"attribute name 2":       {subscribed(`filter: {attributes: {my_ext: a}}`), "attribute names are made of lower-case letters and digits"},
		"both ways to match":     {subscribed(`filter: {attributes: {type: a}, sourceAndType: {type: a}}`), "attributes and sourceAndType cannot be given together"},
		"long expression":        {subscribed(`filters: [{cel: "` + strings.Repeat("1", 4097) + `"}]`), "may not be more than 4096"},
		"negative retry":         {delivered(`retry: -1`), "should be greater than or equal to 0"},
		"backoff policy":         {delivered(`backoffPolicy: quadratic`), `supported values: "linear", "exponential"`},
		"format":                 {delivered(`format: xml`), `supported values: "json", "binary"`},
		"Go duration":            {delivered(`backoffDelay: 2s`), "must be an ISO 8601 duration without years and months, such as PT30S"},
		"months":                 {delivered(`retryAfterMax: P1M`), "must be an ISO 8601 duration without years and months, such as PT30S"},
		"empty duration":         {delivered(`backoffDelay: PT`), "must be an ISO 8601 duration without years and months, such as PT30S"},
		"no timeout at all":      {delivered(`timeout: PT0S`), "must be longer than zero, such as PT30S"},
		"dead letter sink":       {delivered(`deadLetterSink: {uri: letters}`), "uri must be an absolute URL"},
	} {
		t.Run(name, func(t *testing.T) {
			err := kube.TryApply(t.Context(), namespace, cluster.Decode(t, c.object)[0])
			if err == nil || !strings.Contains(err.Error(), c.message) {
				t.Errorf("got %v, want an error that says %q", err, c.message)
			}
		})
	}
}

func TestWhatCannotBeChanged(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	kube.Apply(t, namespace, everything)
	for _, c := range []struct{ kind, patch, message string }{
		{"Broker", `{"spec": {"config": {"name": "other"}}}`, "spec.config cannot be changed"},
		{"Broker", `{"spec": {"config": null}}`, "spec.config cannot be changed"},
		{"Trigger", `{"spec": {"broker": "other"}}`, "spec.broker cannot be changed"},
		{"Trigger", `{"spec": {"broker": null, "brokerRef": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "everything"}}}`, "spec.broker cannot be changed"},
		{"Broker", `{"spec": {"delivery": {"retry": 9}}}`, ""},
		{"Trigger", `{"spec": {"filters": null}}`, ""},
	} {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(eventingv1.GroupVersion().WithKind(c.kind))
		o.SetNamespace(namespace)
		o.SetName("everything")
		err := kube.Client.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(c.patch)))
		if (c.message == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s %s: got %v, want %q", c.kind, c.patch, err, c.message)
		}
	}
}

// TestPrinterColumns asks as kubectl get does.
func TestPrinterColumns(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	kube.Apply(t, namespace, everything)
	for kind, want := range map[string]string{
		"broker": "NAME URL AGE READY REASON", "trigger": "NAME BROKER SUBSCRIBER_URI AGE READY REASON PAUSED",
	} {
		out := kubectl(t, "get", kind, "-n", namespace)
		if header, _, _ := strings.Cut(out, "\n"); strings.Join(strings.Fields(header), " ") != want {
			t.Errorf("%s: got columns %q, want %q", kind, header, want)
		}
	}
	if out := kubectl(t, "get", "eventing", "-n", namespace, "-o", "name"); strings.Count(out, "eventing.knative.dev/") != 3 {
		t.Errorf("the category eventing holds %q, want a Broker and two Triggers", out)
	}
}

// TestExplain asks kubectl for the documentation of fields that Millrace adds, and of one that nests.
func TestExplain(t *testing.T) {
	needsCluster(t)
	for path, want := range map[string]string{
		"trigger.spec.filters.cel":          "CEL is an expression over ce",
		"trigger.spec.filter.sourceAndType": "SourceAndType asks for an exact source and type",
		"trigger.spec.filters.any":          "Any is true when one of its filters is",
		"broker.spec.delivery.backoffDelay": "BackoffDelay is the base of the time between attempts",
	} {
		harness.Eventually(t, "explain "+path, func() error { // the API server publishes schemas a while after they are applied
			out, err := tryKubectl(t, "explain", path)
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("it says %q, want %q in it", out, want)
			}
			return err
		})
	}
}

// kubectl returns what kubectl prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryKubectl(t *testing.T, args ...string) (string, error) {
	program := "kubectl"
	if kube.Binaries != "" {
		program = filepath.Join(kube.Binaries, program)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kube.Kubeconfig)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// TestCRDs checks the CRDs themselves, without a cluster.
func TestCRDs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(cluster.Root(), "config", "crds", "*knative.dev_*.yaml"))
	if err != nil || len(files) != 4 {
		t.Fatalf("found CRDs %v, error %v, want four", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			t.Fatal(err)
		}
		t.Run(crd.Spec.Names.Kind, func(t *testing.T) { checkCRD(t, &crd) })
	}
}

func checkCRD(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition) {
	if crd.Labels["knative.dev/crd-install"] != "true" {
		t.Error("has not the label knative.dev/crd-install, by which others find the CRDs of Knative's API")
	}
	if addressable := crd.Labels["duck.knative.dev/addressable"] == "true"; addressable != (crd.Spec.Names.Kind == "Broker") {
		t.Errorf("label duck.knative.dev/addressable: got %t", addressable)
	}
	categories, versions := "all knative eventing", "v1"
	switch crd.Spec.Names.Kind {
	case sourcesv1.KindKafkaSource:
		categories, versions = "all knative sources", "v1 v1alpha1 v1beta1"
	case sourcesv1alpha1.KindRocketMQSource:
		categories, versions = "all knative sources", "v1alpha1"
	}
	if got := strings.Join(crd.Spec.Names.Categories, " "); got != categories {
		t.Errorf("got categories %q", got)
	}
	if source := crd.Labels["duck.knative.dev/source"] == "true"; source != (categories != "all knative eventing") {
		t.Errorf("label duck.knative.dev/source: got %t", source)
	}
	var names []string
	for i, v := range crd.Spec.Versions {
		names = append(names, v.Name)
		if !v.Served || v.Storage != (i == 0) || v.Subresources == nil || v.Subresources.Status == nil {
			t.Errorf("version %s: served %t, stored %t, subresources %v", v.Name, v.Served, v.Storage, v.Subresources)
		}
		count := 0
		checkDescribed(t, "", v.Schema.OpenAPIV3Schema, &count)
		if count < 50 {
			t.Errorf("found only %d fields", count)
		}
	}
	if got := strings.Join(names, " "); got != versions {
		t.Errorf("got versions %q, want %q", got, versions)
	}
}

// checkDescribed reports the fields without a description, which kubectl explain would be silent about.
func checkDescribed(t *testing.T, path string, s *apiextensionsv1.JSONSchemaProps, count *int) {
	*count++
	// The API server describes metadata itself.
	if s.Description == "" && path != ".metadata" {
		t.Errorf("%s has no description", path)
	}
	for name, child := range s.Properties {
		checkDescribed(t, path+"."+name, &child, count)
	}
	if s.Items != nil {
		for name, child := range s.Items.Schema.Properties {
			checkDescribed(t, path+"[]."+name, &child, count)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
