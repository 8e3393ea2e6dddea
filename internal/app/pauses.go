package app

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/objects"
)

// pauses is the source of dev mode's objects: what the files say, but for the Triggers that somebody has paused or resumed by
// hand. What was said by hand holds until the file says the same, or the Trigger is gone from it, and is not kept.
type pauses struct {
	files objects.Source

	mu    sync.Mutex // held while a Set is applied, as that is done serially
	apply func(*objects.Set)
	set   *objects.Set    // as the files say; nil before they were read
	by    map[string]bool // by hand, by namespace/name of the Trigger; other than the files say
}

// Run implements [objects.Source].
func (p *pauses) Run(ctx context.Context, apply func(*objects.Set)) error {
	return p.files.Run(ctx, func(set *objects.Set) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.apply, p.set = apply, set
		still := make(map[string]bool, len(p.by))
		for _, t := range set.Triggers {
			name := t.Namespace + "/" + t.Name
			if paused, ok := p.by[name]; ok && paused != t.Paused() {
				still[name] = paused
			}
		}
		p.by = still
		apply(pausedSet(set, still))
	})
}

// Pause implements [adminapi.Pauser].
func (p *pauses) Pause(trigger string, paused bool) (adminapi.PauseState, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil {
		return adminapi.PauseState{}, false
	}
	i := slices.IndexFunc(p.set.Triggers, func(t *eventingv1.Trigger) bool { return t.Namespace+"/"+t.Name == trigger })
	if i < 0 {
		return adminapi.PauseState{}, false
	}
	file := p.set.Triggers[i].Paused()
	was, ok := p.by[trigger]
	if !ok {
		was = file
	}
	state := adminapi.PauseState{Trigger: trigger, Paused: paused, Changed: was != paused, Override: file != paused}
	if !state.Changed {
		return state, true
	}
	delete(p.by, trigger)
	if state.Override {
		p.by[trigger] = paused
	}
	p.apply(pausedSet(p.set, p.by))
	return state, true
}

// pausedSet is the Set with the Triggers paused, or not, that by has.
func pausedSet(set *objects.Set, by map[string]bool) *objects.Set {
	if len(by) == 0 {
		return set
	}
	changed := *set
	changed.Triggers = slices.Clone(set.Triggers)
	for i, t := range changed.Triggers {
		if paused, ok := by[t.Namespace+"/"+t.Name]; ok {
			t := *t // what it points to stays: Sets are not changed
			t.Annotations = maps.Clone(t.Annotations)
			if t.Annotations == nil {
				t.Annotations = map[string]string{}
			}
			t.Annotations[eventingv1.PausedAnnotation] = strconv.FormatBool(paused)
			changed.Triggers[i] = &t
		}
	}
	return &changed
}
