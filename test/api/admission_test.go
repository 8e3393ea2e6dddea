package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// installPolicies applies the admission policies of install.yaml until the test ends.
func installPolicies(t *testing.T) {
	t.Helper()
	applied := 0
	for _, o := range installed(t, systemNamespace) {
		if o.GroupVersionKind().Group != "admissionregistration.k8s.io" {
			continue
		}
		if err := kube.TryApply(t.Context(), "", o); err != nil {
			t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
		t.Cleanup(func() { _ = kube.Client.Delete(context.Background(), o) })
		applied++
	}
	if applied == 0 {
		t.Fatal("install.yaml holds no policies")
	}
}

// waitPolicies waits until the API server goes by the policies, which takes it a moment.
func waitPolicies(t *testing.T, namespace string) {
	t.Helper()
	attempt := 0
	harness.Eventually(t, "the policies are in force", func() error {
		attempt++
		probe := fmt.Sprint("probe-", attempt)
		kube.Apply(t, namespace, brokerYAML(probe, "{}"))
		if setClass(t, namespace, probe, `"Other"`) == nil {
			return errors.New("the class was changed")
		}
		return nil
	})
}

// setClass gives a Broker another class, which is JSON.
func setClass(t *testing.T, namespace, name, class string) error {
	b := &eventingv1.Broker{}
	b.Namespace, b.Name = namespace, name
	patch := []byte(`{"metadata": {"annotations": {"eventing.knative.dev/broker.class": ` + class + `}}}`)
	return kube.Client.Patch(t.Context(), b, client.RawPatch(types.MergePatchType, patch))
}

func TestBrokerClassCannotBeChanged(t *testing.T) {
	needsCluster(t)
	installPolicies(t)
	namespace := kube.Namespace(t)
	const refusal = "the annotation eventing.knative.dev/broker.class cannot be changed"
	kube.Apply(t, namespace, brokerYAML("ours", "{}")+`
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: theirs, annotations: {eventing.knative.dev/broker.class: Other}}}
---
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: none}}
`)
	waitPolicies(t, namespace)
	for _, c := range []struct{ name, class, refusal string }{
		{"ours", `"Other"`, refusal},
		{"ours", "null", refusal},
		{"ours", `"Millrace"`, ""},
		{"theirs", `"Millrace"`, refusal},
		{"theirs", `"Third"`, ""}, // is for others to say
		{"none", `"Millrace"`, ""},
		{"none", `"Other"`, refusal},
	} {
		err := setClass(t, namespace, c.name, c.class)
		if (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("class of %s to %s: got %v, want %q", c.name, c.class, err, c.refusal)
		}
	}
}

// TestDefaultsCanBeReadBack applies what config/defaults holds.
func TestDefaultsCanBeReadBack(t *testing.T) {
	needsCluster(t)
	for _, file := range []string{"objects.yaml", "class.yaml"} {
		text, err := os.ReadFile(filepath.Join(cluster.Root(), "config", "defaults", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range cluster.Decode(t, string(text)) {
			if err := kube.TryApply(t.Context(), "", o); err != nil {
				t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
			}
			t.Cleanup(func() { _ = kube.Client.Delete(context.Background(), o) })
		}
	}
	namespace := kube.Namespace(t)
	attempt := 0
	harness.Eventually(t, "the policies are in force", func() error {
		attempt++
		suffix := fmt.Sprint("-", attempt)
		for _, o := range cluster.Decode(t, `
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: bare`+suffix+`}}
---
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: plain`+suffix+`, annotations: {eventing.knative.dev/broker.class: Millrace}}}
---
`+brokerYAML("sink"+suffix, "{delivery: {retry: 0, deadLetterSink: {ref: {kind: Service, name: s}}}}")+
			triggerYAML("t"+suffix, "{broker: b, subscriber: {ref: {kind: Service, name: s}}, delivery: {deadLetterSink: {ref: {kind: Service, name: s, namespace: elsewhere}}}}")+`
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: theirs`+suffix+`, annotations: {eventing.knative.dev/broker.class: Other}}}
`) {
			if err := kube.TryApply(t.Context(), namespace, o); err != nil { // of a CRD that is new the API server has no schema yet
				return err
			}
		}
		for name, want := range map[string]string{
			"Broker bare":   `{"delivery":{"backoffDelay":"PT0.2S","backoffPolicy":"exponential","retry":10}}`,
			"Broker plain":  `{"delivery":{"backoffDelay":"PT0.2S","backoffPolicy":"exponential","retry":10}}`,
			"Broker sink":   `{"delivery":{"deadLetterSink":{"ref":{"kind":"Service","name":"s","namespace":"` + namespace + `"}},"retry":0}}`,
			"Broker theirs": "null",
			"Trigger t": `{"broker":"b","delivery":{"deadLetterSink":{"ref":{"kind":"Service","name":"s","namespace":"elsewhere"}}},"filter":{},` +
				`"subscriber":{"ref":{"kind":"Service","name":"s","namespace":"` + namespace + `"}}}`,
		} {
			kind, name, _ := strings.Cut(name, " ")
			o := &unstructured.Unstructured{}
			o.SetGroupVersionKind(eventingv1.GroupVersion().WithKind(kind))
			if err := kube.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name + suffix}, o); err != nil {
				return err
			}
			if got := asJSON(t, o.Object["spec"]); got != want {
				return fmt.Errorf("the spec of %s %s reads %s, want %s", kind, name, got, want)
			}
			if class := o.GetAnnotations()[eventingv1.BrokerClassAnnotation]; name == "bare" && class != eventingv1.BrokerClass {
				return fmt.Errorf("the class of a Broker that names none reads %q", class)
			}
		}
		return nil
	})
	// The same manifest applied again is no change.
	bare := func() string {
		b := &unstructured.Unstructured{}
		b.SetGroupVersionKind(eventingv1.GroupVersion().WithKind(eventingv1.KindBroker))
		if err := kube.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: fmt.Sprint("bare-", attempt)}, b); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(b.GetGeneration(), asJSON(t, b.Object["spec"]), b.GetAnnotations())
	}
	before := bare()
	kube.Apply(t, namespace, "{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: bare-"+strconv.Itoa(attempt)+"}}")
	if after := bare(); after != before {
		t.Errorf("applying a manifest again changed the Broker from %s to %s", before, after)
	}
}
