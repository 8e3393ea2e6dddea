package resolve_test

import (
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/resolve"
)

func pointer[T any](v T) *T { return &v }

var errAway = errors.New("the API server is away")

// lookup knows one object.
func lookup(ref *eventingv1.KReference) (eventingv1.Addressable, error) {
	switch ref.Name {
	case "here":
		return eventingv1.Addressable{URL: pointer("http://here.example/base/"), CACerts: pointer("its own"), Audience: pointer("here")}, nil
	case "odd":
		return eventingv1.Addressable{URL: pointer("http://[")}, nil
	case "away":
		return eventingv1.Addressable{}, errAway
	}
	return eventingv1.Addressable{}, resolve.Faultf("there is no %s", ref.Name)
}

func TestSubscriber(t *testing.T) {
	ref := func(name string) *eventingv1.KReference { return &eventingv1.KReference{Kind: "Service", Name: name} }
	for name, c := range map[string]struct {
		subscriber           eventingv1.Destination
		uri, certs, audience string
		status               metav1.ConditionStatus
		message              string
	}{
		"uri":                 {eventingv1.Destination{URI: pointer("bad://nobody")}, "bad://nobody", "", "", metav1.ConditionTrue, ""},
		"ref":                 {eventingv1.Destination{Ref: ref("here")}, "http://here.example/base/", "its own", "here", metav1.ConditionTrue, ""},
		"path":                {eventingv1.Destination{Ref: ref("here"), URI: pointer("/x")}, "http://here.example/x", "its own", "here", metav1.ConditionTrue, ""},
		"relative path":       {eventingv1.Destination{Ref: ref("here"), URI: pointer("x?y=1")}, "http://here.example/base/x?y=1", "its own", "here", metav1.ConditionTrue, ""},
		"certificates":        {eventingv1.Destination{Ref: ref("here"), CACerts: pointer("given"), Audience: pointer("given")}, "http://here.example/base/", "given", "given", metav1.ConditionTrue, ""},
		"missing":             {eventingv1.Destination{Ref: ref("gone")}, "", "", "", metav1.ConditionFalse, "there is no gone"},
		"nothing":             {eventingv1.Destination{}, "", "", "", metav1.ConditionFalse, "it has neither a ref nor a uri: write one"},
		"an address, not URL": {eventingv1.Destination{Ref: ref("odd"), URI: pointer("/x")}, "", "", "", metav1.ConditionFalse, `the address "http://[" is not a URL`},
		"not known right now": {eventingv1.Destination{Ref: ref("away")}, "http://before.example", "", "", metav1.ConditionTrue, "as before"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := &eventingv1.Trigger{Spec: eventingv1.TriggerSpec{Subscriber: c.subscriber}}
			tr.Status.SubscriberURI = pointer("http://before.example")
			conditions := resolve.Conditions{Status: &tr.Status.Status, Now: metav1.Now()}
			conditions.Set(eventingv1.ConditionSubscriberResolved, metav1.ConditionTrue, "Ready", "as before")
			resolve.Lookup(lookup).Subscriber(tr, conditions)
			got := meta.FindStatusCondition(tr.Status.Conditions, eventingv1.ConditionSubscriberResolved)
			if got.Status != c.status || got.Message != c.message {
				t.Errorf("condition %s %q, want %s %q", got.Status, got.Message, c.status, c.message)
			}
			for _, p := range []struct {
				what string
				got  *string
				want string
			}{{"URI", tr.Status.SubscriberURI, c.uri}, {"CACerts", tr.Status.SubscriberCACerts, c.certs}, {"audience", tr.Status.SubscriberAudience, c.audience}} {
				if (p.got == nil) != (p.want == "") || p.got != nil && *p.got != p.want {
					t.Errorf("%s %v, want %q", p.what, p.got, p.want)
				}
			}
		})
	}
}

// TestTriggerSink has the sink of the Broker serve Triggers that name none, whatever else their delivery says.
func TestTriggerSink(t *testing.T) {
	broker := &eventingv1.Broker{}
	broker.Spec.Delivery = &eventingv1.DeliverySpec{DeadLetterSink: &eventingv1.Destination{URI: pointer("http://brokers.example")}}
	c := resolve.Conditions{Status: &broker.Status.Status, Now: metav1.Now()}
	unobserved := broker.DeepCopy()
	resolve.Lookup(lookup).BrokerSink(broker, c)
	own := &eventingv1.DeliverySpec{DeadLetterSink: &eventingv1.Destination{URI: pointer("http://own.example")}}
	for name, x := range map[string]struct {
		delivery *eventingv1.DeliverySpec
		broker   *eventingv1.Broker
		uri      string
		status   metav1.ConditionStatus
	}{
		"the Broker's":           {nil, broker, "http://brokers.example", metav1.ConditionTrue},
		"retries alone":          {&eventingv1.DeliverySpec{Retry: pointer(int32(1))}, broker, "http://brokers.example", metav1.ConditionTrue},
		"its own":                {own, broker, "http://own.example", metav1.ConditionTrue},
		"its own, no Broker":     {own, nil, "http://own.example", metav1.ConditionTrue},
		"none":                   {nil, nil, "", metav1.ConditionTrue},
		"the Broker's, some day": {nil, unobserved, "", metav1.ConditionUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			tr := &eventingv1.Trigger{Spec: eventingv1.TriggerSpec{Delivery: x.delivery}}
			resolve.Lookup(lookup).TriggerSink(tr, x.broker, resolve.Conditions{Status: &tr.Status.Status, Now: metav1.Now()})
			got := meta.FindStatusCondition(tr.Status.Conditions, eventingv1.ConditionDeadLetterSinkResolved)
			if got == nil || got.Status != x.status {
				t.Errorf("condition %+v, want %s", got, x.status)
			}
			if uri := tr.Status.DeadLetterSinkURI; (uri == nil) != (x.uri == "") || uri != nil && *uri != x.uri {
				t.Errorf("URI %v, want %q", uri, x.uri)
			}
		})
	}
}

func TestSumUp(t *testing.T) {
	var s eventingv1.Status
	s.ObservedGeneration = 7
	early, late := metav1.NewTime(time.Unix(1, 0)), metav1.NewTime(time.Unix(2, 0))
	c := resolve.Conditions{Status: &s, Now: early}
	c.True("A", "Ready")
	c.Set("B", metav1.ConditionUnknown, "Waiting", "wait")
	c.False("C", "Broken", "mend it")
	c.SumUp("A", "B", "C")
	got := meta.FindStatusCondition(s.Conditions, eventingv1.ConditionReady)
	if got.Status != metav1.ConditionUnknown || got.Reason != "Waiting" || got.Message != "wait" || got.ObservedGeneration != 7 {
		t.Errorf("Ready is %+v, want what the first condition is that is not True", got)
	}
	c.Now = late
	c.SumUp("A")
	got = meta.FindStatusCondition(s.Conditions, eventingv1.ConditionReady)
	if got.Status != metav1.ConditionTrue || got.Message != "" || !got.LastTransitionTime.Equal(&late) {
		t.Errorf("Ready is %+v, want True since the change", got)
	}
	c.Now = metav1.NewTime(time.Unix(3, 0))
	c.SumUp("A")
	if got := meta.FindStatusCondition(s.Conditions, eventingv1.ConditionReady); !got.LastTransitionTime.Equal(&late) {
		t.Errorf("Ready changed at %v, want %v: it is what it was", got.LastTransitionTime, late)
	}
}

// TestState has the state of a Trigger change with all that changes its service, and with nothing else.
func TestState(t *testing.T) {
	newObjects := func() (*eventingv1.Trigger, *eventingv1.Broker) {
		tr, b := &eventingv1.Trigger{}, &eventingv1.Broker{}
		tr.UID, tr.Generation, tr.Status.SubscriberURI = "t", 1, pointer("http://x")
		b.UID, b.Generation = "b", 1
		return tr, b
	}
	before := resolve.State(newObjects())
	for name, c := range map[string]struct {
		change func(*eventingv1.Trigger, *eventingv1.Broker)
		same   bool
	}{
		"spec": {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) { tr.Generation = 2 }, false},
		"annotation": {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) {
			tr.Annotations = map[string]string{eventingv1.CELFilterAnnotation: ""}
		}, false},
		"subscriber":     {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) { tr.Status.SubscriberURI = pointer("http://y") }, false},
		"sink":           {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) { tr.Status.DeadLetterSinkURI = pointer("http://x") }, false},
		"Broker's spec":  {func(_ *eventingv1.Trigger, b *eventingv1.Broker) { b.Generation = 2 }, false},
		"another Broker": {func(_ *eventingv1.Trigger, b *eventingv1.Broker) { b.UID = "c" }, false},
		"Broker's limits": {func(_ *eventingv1.Trigger, b *eventingv1.Broker) {
			b.Annotations = map[string]string{"millrace.dev/backoff-max": "PT1S"}
		}, false},
		"conditions": {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) {
			tr.Status.Conditions = []metav1.Condition{{Type: "Ready"}}
		}, true},
		"other annotations": {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) { tr.Annotations = map[string]string{"x": "y"} }, true},
		"resource version":  {func(tr *eventingv1.Trigger, _ *eventingv1.Broker) { tr.ResourceVersion = "9" }, true},
	} {
		tr, b := newObjects()
		c.change(tr, b)
		if after := resolve.State(tr, b); (after == before) != c.same {
			t.Errorf("%s: state %s after %s, want it the same: %t", name, after, before, c.same)
		}
	}
}

// TestPaused has a Trigger be paused once the filters serve it so, and have no such condition unless it is to be.
func TestPaused(t *testing.T) {
	tr := &eventingv1.Trigger{}
	c := resolve.Conditions{Status: &tr.Status.Status, Now: metav1.Now()}
	expect := func(want metav1.ConditionStatus) {
		t.Helper()
		resolve.Paused(tr, c)
		got := meta.FindStatusCondition(tr.Status.Conditions, eventingv1.ConditionPaused)
		if (got == nil) != (want == "") || got != nil && got.Status != want {
			t.Errorf("Paused is %+v, want %q", got, want)
		}
	}
	expect("")
	tr.Annotations = map[string]string{eventingv1.PausedAnnotation: "true"}
	c.Set(eventingv1.ConditionSubscriptionReady, metav1.ConditionUnknown, eventingv1.ReasonNotServedYet, "")
	expect(metav1.ConditionUnknown)
	c.True(eventingv1.ConditionSubscriptionReady, eventingv1.ReasonReady)
	expect(metav1.ConditionTrue)
	tr.Annotations[eventingv1.PausedAnnotation] = "false"
	expect("")
}
