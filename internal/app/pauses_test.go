package app

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/objects"
)

// told is a source that delivers a Set whenever it is told one.
type told struct{ apply func(*objects.Set) }

func (f *told) Run(_ context.Context, apply func(*objects.Set)) error {
	f.apply = apply
	return nil
}

// setOf is a Set of Triggers in namespace n, by name and whether the file pauses them.
func setOf(paused map[string]bool) *objects.Set {
	set := &objects.Set{}
	for _, name := range []string{"a", "b"} {
		if p, ok := paused[name]; ok {
			t := &eventingv1.Trigger{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
			if p {
				t.Annotations = map[string]string{eventingv1.PausedAnnotation: "true"}
			}
			set.Triggers = append(set.Triggers, t)
		}
	}
	return set
}

// TestPausesByHand has the files and somebody say different things of Triggers, one after the other.
func TestPausesByHand(t *testing.T) {
	files := &told{}
	p := &pauses{files: files, by: map[string]bool{}}
	var served map[string]bool
	applied := 0
	if err := p.Run(t.Context(), func(set *objects.Set) {
		applied++
		served = map[string]bool{}
		for _, t := range set.Triggers {
			served[t.Name] = t.Paused()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Pause("n/a", true); ok {
		t.Error("a Trigger is paused before any is known")
	}
	type state = map[string]bool
	var last *objects.Set
	file := func(s state) func() {
		return func() {
			last = setOf(s)
			files.apply(last)
		}
	}
	hand := func(name string, paused, changed, override bool) func() {
		return func() {
			t.Helper()
			got, ok := p.Pause(name, paused)
			if diff := cmp.Diff(adminapi.PauseState{Trigger: name, Paused: paused, Changed: changed, Override: override}, got); diff != "" || !ok {
				t.Errorf("%v %s", ok, diff)
			}
		}
	}
	for i, step := range []struct {
		do   func()
		want state
	}{
		{file(state{"a": false, "b": true}), state{"a": false, "b": true}},
		{hand("n/a", true, true, true), state{"a": true, "b": true}},
		{hand("n/a", true, false, true), state{"a": true, "b": true}},
		{hand("n/b", true, false, false), state{"a": true, "b": true}},
		{hand("n/b", false, true, true), state{"a": true, "b": false}},
		{file(state{"a": false, "b": true}), state{"a": true, "b": false}},
		{hand("n/b", true, true, false), state{"a": true, "b": true}},
		{file(state{"a": true, "b": true}), state{"a": true, "b": true}},
		{file(state{"a": false, "b": true}), state{"a": false, "b": true}}, // once the file agreed, it alone says
		{hand("n/a", true, true, true), state{"a": true, "b": true}},
		{file(state{"b": true}), state{"b": true}},
		{file(state{"a": false, "b": true}), state{"a": false, "b": true}}, // it is another Trigger
	} {
		step.do()
		if diff := cmp.Diff(step.want, served); diff != "" {
			t.Errorf("after step %d: %s", i, diff)
		}
	}
	if _, ok := p.Pause("n/c", true); ok {
		t.Error("a Trigger is paused that is not there")
	}
	was := applied
	if p.Pause("n/a", false); applied != was {
		t.Error("what changes nothing is applied")
	}
	if p.Pause("n/a", true); last.Triggers[0].Annotations != nil {
		t.Error("the Set of the files was changed")
	}
}
