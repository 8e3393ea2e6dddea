package kube

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/objects"
)

// reader answers for one Secret and counts the questions.
type reader struct {
	data  map[string][]byte
	err   error
	asked int
}

func (r *reader) fetch(context.Context, types.NamespacedName) (map[string][]byte, error) {
	r.asked++
	return r.data, r.err
}

// secured is a source that is resolved and needs a Secret.
func secured(generation int64) *sourcesv1.KafkaSource {
	uri := "http://sink.example"
	s := &sourcesv1.KafkaSource{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "orders", UID: "u", Generation: generation}}
	s.Spec.BootstrapServers, s.Spec.Topics = sourcesv1.StringList{"kafka:9092"}, sourcesv1.StringList{"orders"}
	s.Spec.Sink = eventingv1.Destination{URI: &uri}
	value := func(key string) sourcesv1.SecretValueFromSource {
		return sourcesv1.SecretValueFromSource{SecretKeyRef: &sourcesv1.SecretKeySelector{Name: "kafka", Key: key}}
	}
	s.Spec.Net.SASL = sourcesv1.KafkaSASLSpec{Enable: true, User: value("user"), Password: value("password")}
	s.Status.ObservedGeneration = generation
	for _, kind := range []string{sourcesv1.ConditionSinkProvided, eventingv1.ConditionDeadLetterSinkResolved} {
		meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: "Ready"})
	}
	// What the controller has written is not what the process goes by.
	meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: eventingv1.ConditionReady, Status: metav1.ConditionFalse, Reason: "Unreachable"})
	return s
}

// TestSecretsAreReadByName follows a Secret through what may become of it.
func TestSecretsAreReadByName(t *testing.T) {
	r := &reader{data: map[string][]byte{"user": []byte("alice"), "password": []byte("one"), "other": []byte("none of ours")}}
	now := time.Now()
	s := &secrets{fetch: r.fetch, log: slog.New(slog.DiscardHandler), now: func() time.Time { return now }, known: map[types.NamespacedName]*knownSecret{}}
	look := func(what string, generation int64, asked int, password, ready string) {
		t.Helper()
		set := &objects.Set{Sources: copies([]sourcesv1.Source{secured(generation)})}
		s.read(t.Context(), set)
		prepare(set, s, metav1.Now())
		if r.asked != asked {
			t.Errorf("%s: asked %d times, want %d", what, r.asked, asked)
		}
		if got, _ := set.Secret("a", "kafka", "password"); string(got) != password {
			t.Errorf("%s: password %q, want %q", what, got, password)
		}
		if _, ok := set.Secret("a", "kafka", "other"); ok {
			t.Errorf("%s: a key is kept that no source names", what)
		}
		got := meta.FindStatusCondition(set.Sources[0].Observed().Conditions, eventingv1.ConditionReady)
		if text := got.Reason + " " + got.Message; !strings.HasPrefix(text, ready) {
			t.Errorf("%s: %s, want %s", what, text, ready)
		}
	}
	look("at first", 1, 1, "one", "Ready")
	r.data = map[string][]byte{"user": []byte("alice"), "password": []byte("two")}
	look("at once again", 1, 1, "one", "Ready")
	if s.next() > rereadEvery || s.next() < rereadEvery-time.Second {
		t.Errorf("the next look is in %v", s.next())
	}
	now = now.Add(rereadEvery)
	look("when due", 1, 2, "two", "Ready")
	r.data["password"] = []byte("three")
	look("when its source has changed", 2, 3, "three", "Ready")
	r.err = errors.New("connection refused")
	now = now.Add(rereadEvery)
	look("while the API server is away", 2, 4, "three", "Ready")
	gone := schema.GroupResource{Resource: "secrets"}
	r.err = apierrors.NewForbidden(gone, "kafka", nil)
	now = now.Add(missingEvery)
	look("without the right", 2, 5, "", "SecretNotReadable broker-source may not get Secret a/kafka")
	r.err = apierrors.NewNotFound(gone, "kafka")
	now = now.Add(missingEvery)
	look("when it is gone", 2, 6, "", "SecretMissing there is no Secret a/kafka")
	s.read(t.Context(), &objects.Set{})
	if len(s.known) != 0 {
		t.Errorf("a Secret is kept that no source names: %v", s.known)
	}
}

// TestUnsoundSourceIsNotRun has one get past the API server.
func TestUnsoundSourceIsNotRun(t *testing.T) {
	s := secured(1)
	s.Spec.Net.SASL.Enable = false
	s.Spec.Topics = sourcesv1.StringList{"not a topic"}
	set := &objects.Set{Sources: copies([]sourcesv1.Source{s})}
	prepare(set, &secrets{}, metav1.Now())
	if got := meta.FindStatusCondition(set.Sources[0].Observed().Conditions, eventingv1.ConditionReady); got.Reason != eventingv1.ReasonInvalidSpec {
		t.Errorf("got %+v", got)
	}
	if s.Spec.InitialOffset != "" {
		t.Error("the cache's own object was changed")
	}
}
