package objects

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
)

// builder puts the manifests of several files together into a Set.
type builder struct {
	resolver resolver
	now      metav1.Time
	previous *previous
}

// previous is what a builder has to know of the Sets before, so that generations count on and conditions keep their
// times.
type previous struct {
	objects     map[Key]metav1.Object
	generations map[Key]int64
}

func newPrevious() *previous {
	return &previous{objects: map[Key]metav1.Object{}, generations: map[Key]int64{}}
}

// build returns the Set of manifests and what the next build has to know. The manifests are left as they are.
func (b *builder) build(manifests []*manifest) (*Set, *previous) {
	set := &Set{Skipped: map[string]int{}, places: map[Key]*object{}, Secrets: map[types.NamespacedName]map[string][]byte{}}
	for _, m := range manifests {
		set.Problems = append(set.Problems, m.problems...)
		for what, count := range m.skipped {
			set.Skipped[what] += count
		}
		for _, o := range m.objects {
			set.addPlace(o)
		}
	}
	next := &previous{objects: map[Key]metav1.Object{}, generations: maps.Clone(b.previous.generations)}
	set.Brokers = b.brokers(set, next)
	set.Triggers = b.triggers(set, next, failedKeys(manifests))
	set.Sources = b.sources(set, next)
	slices.SortStableFunc(set.Problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
	})
	return set, next
}

// addPlace registers an object, unless one of the same name is there already.
func (s *Set) addPlace(o *object) {
	first, duplicate := s.places[o.key]
	if !duplicate {
		s.places[o.key] = o
		if o.key.Kind == kindSecret {
			s.Secrets[types.NamespacedName{Namespace: o.key.Namespace, Name: o.key.Name}] = o.secret
		}
		return
	}
	s.Problems = append(s.Problems, Problem{
		File: o.file, Line: int(o.places[0].line), Column: int(o.places[0].column), Object: o.key.String(),
		Detail: "is already defined at " + first.firstLine() + ", which stays in use", Hint: "rename or remove one of the two",
	})
}

func failedKeys(manifests []*manifest) map[Key]bool {
	failed := map[Key]bool{}
	for _, m := range manifests {
		maps.Copy(failed, m.failed)
	}
	return failed
}

// sorted returns the objects of a kind in order of namespace and name.
func (s *Set) sorted(kind string) []*object {
	var sorted []*object
	for key, o := range s.places {
		if key.Kind == kind {
			sorted = append(sorted, o)
		}
	}
	slices.SortFunc(sorted, func(x, y *object) int {
		return cmp.Or(cmp.Compare(x.key.Namespace, y.key.Namespace), cmp.Compare(x.key.Name, y.key.Name))
	})
	return sorted
}

// brokers returns the Brokers of our class with their status. The others are not ours to touch.
func (b *builder) brokers(set *Set, next *previous) []*eventingv1.Broker {
	b.resolver.brokers = map[types.NamespacedName]bool{}
	var brokers []*eventingv1.Broker
	for _, o := range set.sorted(eventingv1.KindBroker) {
		if class := o.broker.Annotations[eventingv1.BrokerClassAnnotation]; class != eventingv1.BrokerClass {
			set.Skipped[fmt.Sprintf("Broker of class %s", class)]++
			continue
		}
		b.resolver.brokers[types.NamespacedName{Namespace: o.key.Namespace, Name: o.key.Name}] = true
		brokers = append(brokers, o.broker.DeepCopy())
	}
	for _, broker := range brokers {
		key := Key{eventingv1.KindBroker, broker.Namespace, broker.Name}
		if old, ok := b.previous.objects[key].(*eventingv1.Broker); ok {
			broker.Status.Conditions = slices.Clone(old.Status.Conditions)
			b.identify(key, &broker.ObjectMeta, sameContent(&broker.ObjectMeta, &old.ObjectMeta, broker.Spec, old.Spec), next)
		} else {
			b.identify(key, &broker.ObjectMeta, false, next)
		}
		b.resolver.broker(broker, b.now)
		next.objects[key] = broker
	}
	return brokers
}

// triggers returns the Triggers of our Brokers, and of Brokers that are not there, with their status.
func (b *builder) triggers(set *Set, next *previous, failed map[Key]bool) []*eventingv1.Trigger {
	var triggers []*eventingv1.Trigger
	for _, o := range set.sorted(eventingv1.KindTrigger) {
		state := b.brokerState(set, next, failed, o.trigger.BrokerName())
		if state.foreign {
			set.Skipped["Trigger of a Broker of another class"]++
			continue
		}
		trigger := o.trigger.DeepCopy()
		if old, ok := b.previous.objects[o.key].(*eventingv1.Trigger); ok {
			trigger.Status.Conditions = slices.Clone(old.Status.Conditions)
			b.identify(o.key, &trigger.ObjectMeta, sameContent(&trigger.ObjectMeta, &old.ObjectMeta, trigger.Spec, old.Spec), next)
		} else {
			b.identify(o.key, &trigger.ObjectMeta, false, next)
		}
		b.resolver.trigger(trigger, state, b.now)
		next.objects[o.key] = trigger
		triggers = append(triggers, trigger)
	}
	return triggers
}

// sources returns the sources of all kinds with their status.
func (b *builder) sources(set *Set, next *previous) []sourcesv1.Source {
	var sources []sourcesv1.Source
	for _, kind := range sourceKinds() {
		for _, o := range set.sorted(kind.name) {
			source, _ := o.source.DeepCopyObject().(sourcesv1.Source)
			old, ok := b.previous.objects[o.key].(sourcesv1.Source)
			if ok {
				source.Observed().Conditions = slices.Clone(old.Observed().Conditions)
			}
			b.identify(o.key, source, ok && sameContent(source, old, source.Specification(), old.Specification()), next)
			b.resolver.source(source, set, b.now)
			next.objects[o.key] = source
			sources = append(sources, source)
		}
	}
	return sources
}

// brokerState is what there is to know of a Trigger's Broker.
type brokerState struct {
	name    types.NamespacedName
	broker  *eventingv1.Broker // nil when it is not there
	failed  bool               // it is not there because its manifest has mistakes
	foreign bool               // it is of another class
}

func (b *builder) brokerState(set *Set, next *previous, failed map[Key]bool, name types.NamespacedName) brokerState {
	key := Key{eventingv1.KindBroker, name.Namespace, name.Name}
	broker, _ := next.objects[key].(*eventingv1.Broker)
	_, written := set.places[key]
	return brokerState{name: name, broker: broker, failed: failed[key], foreign: broker == nil && written}
}

// sameContent reports whether what the author of an object decides is the same in two versions of it.
func sameContent[T any](x, y metav1.Object, xSpec, ySpec T) bool {
	return maps.Equal(x.GetAnnotations(), y.GetAnnotations()) && maps.Equal(x.GetLabels(), y.GetLabels()) &&
		equality.Semantic.DeepEqual(xSpec, ySpec)
}

// identify gives an object its UID and generation. The UID follows from the name, so that it survives a restart; the
// generation counts the object's contents, and goes on counting when the object is removed and comes back.
func (b *builder) identify(key Key, meta metav1.Object, unchanged bool, next *previous) {
	generation := b.previous.generations[key]
	if !unchanged {
		generation++
	}
	next.generations[key] = generation
	meta.SetGeneration(generation)
	meta.SetUID(uidOf(key))
}

// uidOf derives a UUID of version 5 from a key. No name can hold the slash between its parts.
func uidOf(key Key) types.UID {
	space := uuid.NewSHA1(uuid.NameSpaceDNS, []byte("objects.millrace.dev"))
	return types.UID(uuid.NewSHA1(space, []byte(key.Kind+"/"+key.Namespace+"/"+key.Name)).String())
}
