package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/objects"
)

func broker(namespace, name, class string) eventingv1.Broker {
	return eventingv1.Broker{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, Annotations: map[string]string{eventingv1.BrokerClassAnnotation: class},
	}}
}

func trigger(namespace, name string, spec eventingv1.TriggerSpec) eventingv1.Trigger {
	return eventingv1.Trigger{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

// TestSetHoldsWhatIsOurs has objects of other classes, and a Trigger that reaches for another namespace's events.
func TestSetHoldsWhatIsOurs(t *testing.T) {
	set := newSet(
		[]eventingv1.Broker{
			broker("b", "ours", eventingv1.BrokerClass), broker("a", "ours", eventingv1.BrokerClass), broker("a", "theirs", "Other"),
		},
		[]eventingv1.Trigger{
			trigger("b", "t", eventingv1.TriggerSpec{Broker: "ours"}),
			trigger("a", "of-theirs", eventingv1.TriggerSpec{Broker: "theirs"}),
			trigger("a", "early", eventingv1.TriggerSpec{Broker: "later"}),
			trigger("a", "by-ref", eventingv1.TriggerSpec{BrokerRef: &eventingv1.KReference{Kind: "Broker", Name: "ours"}}),
			trigger("a", "thief", eventingv1.TriggerSpec{BrokerRef: &eventingv1.KReference{Kind: "Broker", Namespace: "b", Name: "ours"}}),
		})
	var got []string
	for _, b := range set.Brokers {
		got = append(got, "Broker "+b.Namespace+"/"+b.Name)
	}
	for _, tr := range set.Triggers {
		got = append(got, "Trigger "+tr.Namespace+"/"+tr.Name)
	}
	want := []string{"Broker a/ours", "Broker b/ours", "Trigger a/by-ref", "Trigger a/early", "Trigger b/t"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the set (-want +got):\n%s", diff)
	}
	if file, _, _ := set.Locate("Trigger", "a", "early", "spec"); file != "" {
		t.Errorf("an object of the cluster is in file %q", file)
	}
}

// TestProblemsOfACluster have no file, and say which object is meant all the same.
func TestProblemsOfACluster(t *testing.T) {
	p := objects.Problem{Object: "Trigger a/t", Field: "spec.filters[0].cel", Detail: "does not parse"}
	if got, want := p.String(), "Trigger a/t: spec.filters[0].cel: does not parse"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStrip(t *testing.T) {
	b := broker("a", "b", eventingv1.BrokerClass)
	b.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	b.Labels = map[string]string{"x": "y"}
	b.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
	b.UID, b.Generation = "u", 3
	stripped, err := strip(&b)
	if err != nil {
		t.Fatal(err)
	}
	want := broker("a", "b", eventingv1.BrokerClass)
	want.UID, want.Generation = "u", 3
	if diff := cmp.Diff(&want, stripped); diff != "" {
		t.Errorf("what is kept of a Broker (-want +got):\n%s", diff)
	}
}
