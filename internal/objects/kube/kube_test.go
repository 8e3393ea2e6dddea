package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/objects"
)

func broker(namespace, name, class string) *eventingv1.Broker {
	return &eventingv1.Broker{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, Annotations: map[string]string{eventingv1.BrokerClassAnnotation: class},
	}}
}

func trigger(namespace, name string, spec eventingv1.TriggerSpec) *eventingv1.Trigger {
	return &eventingv1.Trigger{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

// TestSetHoldsWhatIsOurs has objects of other classes, and a Trigger that reaches for another namespace's events.
func TestSetHoldsWhatIsOurs(t *testing.T) {
	set := newSet(
		[]*eventingv1.Broker{
			broker("b", "ours", eventingv1.BrokerClass), broker("a", "ours", eventingv1.BrokerClass), broker("a", "theirs", "Other"),
		},
		[]*eventingv1.Trigger{
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
	stripped, err := strip(b)
	if err != nil {
		t.Fatal(err)
	}
	want := broker("a", "b", eventingv1.BrokerClass)
	want.UID, want.Generation = "u", 3
	if diff := cmp.Diff(want, stripped); diff != "" {
		t.Errorf("what is kept of a Broker (-want +got):\n%s", diff)
	}
}

// apiServer answers for Brokers and Triggers as the API server does: when it is first asked for a kind, it does not know
// it yet; then there is one Broker, and a second one comes while they are watched.
func apiServer(t *testing.T) *rest.Config {
	t.Helper()
	const (
		first  = `{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","metadata":{"namespace":"a","name":"first","annotations":{"eventing.knative.dev/broker.class":"Millrace"}}}`
		added  = `{"type":"ADDED","object":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","metadata":{"namespace":"a","name":"second","resourceVersion":"2","annotations":{"eventing.knative.dev/broker.class":"Millrace"}}}}`
		format = `{"apiVersion":"eventing.knative.dev/v1","kind":"%sList","metadata":{"resourceVersion":"1"},"items":[%s]}`
	)
	var asked sync.Map
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		brokers := strings.HasSuffix(r.URL.Path, "/brokers")
		_, known := asked.LoadOrStore(r.URL.Path, true)
		switch q := r.URL.Query(); {
		case !known:
			w.WriteHeader(http.StatusNotFound)
		case q.Get("watch") == "" && brokers:
			fmt.Fprintf(w, format, "Broker", first)
		case q.Get("watch") == "":
			fmt.Fprintf(w, format, "Trigger", "")
		case q.Get("sendInitialEvents") != "": // there are servers without lists in a watch
			w.WriteHeader(http.StatusUnprocessableEntity)
		default:
			if brokers {
				fmt.Fprint(w, added)
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(s.Close)
	return &rest.Config{Host: s.URL}
}

// TestRunFollowsTheCluster starts before the kinds are installed.
func TestRunFollowsTheCluster(t *testing.T) {
	for name, open := range map[string]func(*rest.Config, *slog.Logger) (*Source, error){"all": New, "brokers alone": NewBrokers} {
		t.Run(name, func(t *testing.T) {
			source, err := open(apiServer(t), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			err = source.Run(ctx, func(set *objects.Set) {
				got = nil
				for _, b := range set.Brokers {
					got = append(got, b.Name)
				}
				if len(got) == 2 {
					cancel()
				}
			})
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
			if diff := cmp.Diff([]string{"first", "second"}, got); diff != "" {
				t.Errorf("the Brokers (-want +got):\n%s", diff)
			}
		})
	}
}
