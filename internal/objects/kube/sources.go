package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/objects"
	"millrace.dev/internal/resolve"
)

const (
	// rereadEvery is how often a Secret is looked at for a change, missingEvery how often for one that could not be read.
	rereadEvery, missingEvery = 30 * time.Second, 5 * time.Second
	// readTimeout bounds the reading of one Secret.
	readTimeout = 5 * time.Second
)

// copies returns copies of the sources that are not being deleted, with their defaults, in order of their names.
func copies(known []sourcesv1.Source) []sourcesv1.Source {
	var sources []sourcesv1.Source
	for _, o := range known {
		if s, ok := o.DeepCopyObject().(sourcesv1.Source); ok && s.GetDeletionTimestamp() == nil {
			s.Default()
			sources = append(sources, s)
		}
	}
	slices.SortFunc(sources, func(x, y sourcesv1.Source) int { return byName(x, y) })
	return sources
}

// prepare has the Ready condition of each source say whether it can be run. What is there comes from those who run it.
func prepare(set *objects.Set, known *secrets, now metav1.Time) {
	for _, s := range set.Sources {
		c := resolve.Conditions{Status: &s.Observed().Status, Now: now}
		if faults := s.Validate(); len(faults) > 0 {
			c.False(eventingv1.ConditionReady, eventingv1.ReasonInvalidSpec, faults.ToAggregate().Error())
			continue
		}
		objects.SecretsProvided(s, set, c)
		if err := known.unreadable(s); err != nil {
			c.False(sourcesv1.ConditionSecretsProvided, sourcesv1.ReasonSecretNotReadable, err.Error())
		}
		resolve.CanRun(s, c, sourcesv1.ConditionSecretsProvided)
	}
}

// secrets reads Secrets by their names. They are neither listed nor watched: the right to do so would be one to all Secrets.
type secrets struct {
	// fetch returns the values of a Secret, or the API server's error.
	fetch func(context.Context, types.NamespacedName) (map[string][]byte, error)
	log   *slog.Logger
	now   func() time.Time
	known map[types.NamespacedName]*knownSecret
}

// knownSecret is what was read of a Secret.
type knownSecret struct {
	// readers are the sources, and their generations, that it was read for.
	readers string
	at      time.Time
	values  map[string][]byte
	err     error // why it cannot be read; it being missing is no error
}

// newSecrets reads with a client of the core's version v1, of whose kinds no more than this is known.
func newSecrets(core *rest.RESTClient, log *slog.Logger) *secrets {
	fetch := func(ctx context.Context, name types.NamespacedName) (map[string][]byte, error) {
		text, err := core.Get().Namespace(name.Namespace).Resource("secrets").Name(name.Name).DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		var secret struct {
			Data map[string][]byte `json:"data"`
		}
		if err := json.Unmarshal(text, &secret); err != nil {
			return nil, errUnreadable // the error itself may repeat a value
		}
		return secret.Data, nil
	}
	return &secrets{fetch: fetch, log: log, now: time.Now, known: map[types.NamespacedName]*knownSecret{}}
}

// errUnreadable says that an answer is no Secret.
var errUnreadable = errors.New("the answer is no Secret")

// read fills in the Secrets of a set. It asks for those that are new, due, or whose sources have changed, and forgets those that
// no source names.
func (s *secrets) read(ctx context.Context, set *objects.Set) {
	keys, readers := map[types.NamespacedName][]string{}, map[types.NamespacedName]string{}
	for _, source := range set.Sources {
		for _, ref := range source.SecretRefs() {
			name := types.NamespacedName{Namespace: source.GetNamespace(), Name: ref.Name}
			keys[name] = append(keys[name], ref.Key)
			readers[name] += fmt.Sprintf("%s %d,", source.GetUID(), source.GetGeneration())
		}
	}
	next := make(map[types.NamespacedName]*knownSecret, len(keys))
	set.Secrets = make(map[types.NamespacedName]map[string][]byte, len(keys))
	away := false
	for name := range keys {
		secret := s.known[name]
		if secret == nil || secret.readers != readers[name] || s.now().Sub(secret.at) >= secret.again() {
			secret, away = s.get(ctx, name, secret, away)
			secret.readers = readers[name]
		}
		next[name] = secret
		values := map[string][]byte{}
		for _, key := range keys[name] {
			if value, ok := secret.values[key]; ok {
				values[key] = value
			}
		}
		secret.values = values // the other keys are none of our business
		if len(values) > 0 {
			set.Secrets[name] = values
		}
	}
	s.known = next
}

// get asks for a Secret. While the API server is away, what was read last stays in use and nothing else is asked for.
func (s *secrets) get(ctx context.Context, name types.NamespacedName, last *knownSecret, away bool) (_ *knownSecret, stillAway bool) {
	now := &knownSecret{at: s.now()}
	if last != nil {
		now.values = last.values
	}
	if away {
		now.err = errAway
		return now, true
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	switch values, err := s.fetch(ctx, name); {
	case err == nil:
		now.values = values
	case apierrors.IsNotFound(err):
		now.values = nil
	case apierrors.IsForbidden(err):
		now.values = nil
		now.err = resolve.Faultf("broker-source may not get Secret %s: permit it in namespace %s by a RoleBinding of its ServiceAccount to the ClusterRole millrace-source-secrets", name, name.Namespace)
	default:
		s.log.WarnContext(ctx, "cannot read a secret; what was read last stays in use", slog.String("secret", name.String()), slog.Any("error", err))
		now.err = errAway
		return now, true
	}
	return now, false
}

// errAway says that the API server does not answer.
var errAway = errors.New("the API server does not answer")

// again is when the Secret is to be read again.
func (k *knownSecret) again() time.Duration {
	if k.err != nil || len(k.values) == 0 {
		return missingEvery
	}
	return rereadEvery
}

// next is how long it is until a Secret is to be read again.
func (s *secrets) next() time.Duration {
	next := rereadEvery
	for _, secret := range s.known {
		next = min(next, secret.again()-s.now().Sub(secret.at))
	}
	return max(next, settle)
}

// unreadable says why a Secret of the source cannot be read and was not before; nil if there is none such.
func (s *secrets) unreadable(source sourcesv1.Source) error {
	for _, ref := range source.SecretRefs() {
		secret := s.known[types.NamespacedName{Namespace: source.GetNamespace(), Name: ref.Name}]
		switch {
		case secret == nil || secret.err == nil || len(secret.values) > 0:
		case errors.Is(secret.err, errAway):
			return resolve.Faultf("Secret %s/%s cannot be read: %s", source.GetNamespace(), ref.Name, strings.TrimSpace(secret.err.Error()))
		default:
			return secret.err
		}
	}
	return nil
}
