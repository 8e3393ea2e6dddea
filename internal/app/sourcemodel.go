package app

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
	"millrace.dev/internal/objects"
	"millrace.dev/internal/resolve"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/kafka"
	"millrace.dev/pkg/source/rocketmq"
	"millrace.dev/pkg/stream"
)

// The reasons why a source does not run that the data plane itself finds.
const (
	reasonPaused        = "Paused"
	reasonSecretInvalid = "SecretInvalid"
)

// sourceModel is one source object, ready to be run or with the reason why it is not.
type sourceModel struct {
	kind, key, uid string
	// fingerprint changes with everything that the source must be started anew for.
	fingerprint [sha256.Size]byte
	// state is what the controller knows this version by, see [resolve.SourceState].
	state string
	// reason and message are empty if the source is to run.
	reason, message string

	open       func(sourceRun) source.Source
	namespace  string
	sink, dead *sinkModel // dead may be nil
	policy     delivery.Policy
	drop       bool
}

// sourceRun is what a source is run with.
type sourceRun struct {
	dialer *net.Dialer
	outlet *source.Outlet
	log    *slog.Logger
	// instance is unique among the processes and the same after a restart; empty if there is no such name.
	instance string
}

// sinkModel is where events go: to a Broker's stream or to a URL.
type sinkModel struct {
	broker *stream.Names // nil if it is a URL
	limits event.Limits  // of the Broker
	url    *url.URL
	host   string
}

// String says where events go, without credentials.
func (s *sinkModel) String() string {
	if s.broker != nil {
		return "Broker " + s.broker.Namespace + "/" + s.broker.Name
	}
	return s.url.Redacted()
}

// newSources returns the sources of a set, and what is wrong with them.
func (b *builder) newSources(set *objects.Set, brokers map[string]*brokerModel) (sources []*sourceModel, problems []objects.Problem) {
	for _, o := range set.Sources {
		m, found := b.newSourceModel(o, set, brokers)
		sources, problems = append(sources, m), append(problems, found...)
	}
	return sources, problems
}

func (b *builder) newSourceModel(o sourcesv1.Source, set *objects.Set, brokers map[string]*brokerModel) (*sourceModel, []objects.Problem) {
	m := &sourceModel{
		kind: o.SourceKind(), key: o.GetNamespace() + "/" + o.GetName(), uid: string(o.GetUID()), namespace: o.GetNamespace(),
		state: resolve.SourceState(o),
	}
	fail := func(reason, message string) (*sourceModel, []objects.Problem) {
		m.reason, m.message = reason, message
		m.fingerprint = sha256.Sum256([]byte(reason + message))
		return m, nil
	}
	status := o.Observed()
	if c := meta.FindStatusCondition(status.Conditions, eventingv1.ConditionReady); c != nil && c.Status == metav1.ConditionFalse {
		return fail(c.Reason, c.Message)
	}
	if o.Paused() {
		return fail(reasonPaused, pausedMessage(o))
	}
	var err error
	if m.sink, err = newSinkModel(&o.Common().Sink, status.SinkURI, brokers); err != nil {
		return fail(sourcesv1.ReasonSinkUnresolved, err.Error())
	}
	m.sink.host = o.GetAnnotations()[sourcesv1.HostAnnotation]
	if d := o.Common().Delivery; d != nil && d.DeadLetterSink != nil {
		if m.dead, err = newSinkModel(d.DeadLetterSink, status.DeadLetterSinkURI, brokers); err != nil {
			return fail(eventingv1.ReasonDeadLetterSinkUnresolved, err.Error())
		}
	}
	policy, errs := sourcePolicy(o)
	if len(errs) > 0 {
		_, _ = fail(reasonInvalidDelivery, errs.ToAggregate().Error())
		return m, set.Explain(objects.Key{Kind: m.kind, Namespace: o.GetNamespace(), Name: o.GetName()}, errs)
	}
	m.policy, m.drop = policy, o.GetAnnotations()[sourcesv1.UndeliverableAnnotation] == "drop"
	if b.open != nil {
		if m.open, err = b.open(o, set); err != nil {
			return fail(reasonSecretInvalid, err.Error())
		}
	}
	m.fingerprint = fingerprint(o, set, m)
	return m, nil
}

// pausedMessage says how a source goes on that stands still.
func pausedMessage(o sourcesv1.Source) string {
	if !sourcesv1.HasPause(o) {
		return "raise spec.consumers to have it go on"
	}
	return "remove the annotation " + sourcesv1.PausedAnnotation + " to have it go on"
}

// sourceOpener returns what makes the source that an object describes.
type sourceOpener func(o sourcesv1.Source, set *objects.Set) (func(sourceRun) source.Source, error)

// openSource is the sourceOpener for all kinds.
func openSource(o sourcesv1.Source, set *objects.Set) (func(sourceRun) source.Source, error) {
	switch o := o.(type) {
	case *sourcesv1.KafkaSource:
		return openKafka(o, set)
	case *sourcesv1alpha1.RocketMQSource:
		return openRocketMQ(o, set)
	}
	return nil, fmt.Errorf("sources of kind %s cannot be run", o.SourceKind())
}

// newSinkModel returns where a destination leads, whose URL was resolved if it is no Broker that is served here.
func newSinkModel(dest *eventingv1.Destination, uri *string, brokers map[string]*brokerModel) (*sinkModel, error) {
	if sourcesv1.IsBroker(dest) {
		if b := brokers[dest.Ref.Namespace+"/"+dest.Ref.Name]; b != nil {
			limits := event.Limits{Data: b.ingress.MaxEventBytes, Attributes: event.DefaultMaxAttributeBytes}
			return &sinkModel{broker: b.names, limits: limits}, nil
		}
	}
	if uri == nil {
		return nil, errors.New("the sink has no address yet")
	}
	u, err := url.Parse(*uri)
	if err != nil {
		return nil, errors.New("the sink's address is no URL")
	}
	if err := delivery.CheckURL(u); err != nil {
		return nil, fmt.Errorf("the sink: %w", err)
	}
	return &sinkModel{url: u}, nil
}

// fingerprint sums up what a source is made of.
func fingerprint(o sourcesv1.Source, set *objects.Set, m *sourceModel) [sha256.Size]byte {
	var secrets [][]byte
	for _, ref := range o.SecretRefs() {
		value, _ := set.Secret(o.GetNamespace(), ref.Name, ref.Key)
		secrets = append(secrets, value)
	}
	sinks := []any{m.sink.String(), m.sink.limits, m.sink.broker}
	if m.dead != nil {
		sinks = append(sinks, m.dead.String(), m.dead.limits, m.dead.broker)
	}
	text, _ := json.Marshal([]any{o.Specification(), o.GetLabels(), o.GetAnnotations(), secrets, sinks}) // none of it can fail
	return sha256.Sum256(text)
}

// sourcePolicy is the delivery policy of a source: that of its spec, over what its annotations say.
func sourcePolicy(o sourcesv1.Source) (delivery.Policy, field.ErrorList) {
	annotations, spec := o.GetAnnotations(), o.Common().Delivery
	p := delivery.DefaultPolicy()
	if n, err := strconv.Atoi(annotations[sourcesv1.RetryCountAnnotation]); err == nil {
		p.Retries = n
	}
	if n, err := strconv.Atoi(annotations[sourcesv1.RequestTimeoutAnnotation]); err == nil {
		p.Timeout = time.Duration(n) * time.Second
	}
	ownDelay := spec != nil && spec.BackoffDelay != nil
	if n, err := strconv.Atoi(annotations[sourcesv1.RetryIntervalAnnotation]); err == nil && !ownDelay {
		p.BackoffDelay = time.Duration(n) * time.Second
		p.BackoffMax = p.BackoffDelay // the same time between all attempts
	}
	return p.Resolve(spec, nil, annotations)
}

func openKafka(o *sourcesv1.KafkaSource, set *objects.Set) (func(sourceRun) source.Source, error) {
	options := kafka.Options{
		Namespace: o.Namespace, Name: o.Name, Servers: o.Spec.BootstrapServers, Topics: o.Spec.Topics, Group: o.Group(),
		FromStart: o.Spec.InitialOffset == sourcesv1.OffsetEarliest, KeyType: kafka.KeyType(o.Labels[sourcesv1.KeyTypeLabel]),
		Extensions: overrides(o),
	}
	if o.Spec.Ordering != nil {
		options.Order = map[sourcesv1.Ordering]source.Order{
			sourcesv1.OrderingUnordered: source.Unordered, sourcesv1.OrderingKey: source.ByKey,
		}[*o.Spec.Ordering]
	}
	secret := secrets(o, set)
	var err error
	if s := o.Spec.Net.SASL; s.Enable {
		if options.Mechanism, err = kafka.NewMechanism(secret(s.Type), secret(s.User), secret(s.Password)); err != nil {
			return nil, fmt.Errorf("spec.net.sasl.type: %w", err)
		}
	}
	if options.TLS, err = newTLS(&o.Spec.Net.TLS, secret); err != nil {
		return nil, err
	}
	return func(run sourceRun) source.Source {
		options := options
		options.Dialer, options.Logger, options.Outlet = run.dialer, run.log, run.outlet
		if run.instance != "" {
			options.Instance = run.instance + "-" + string(o.UID) // two sources may share a group
		}
		return kafka.New(options)
	}, nil
}

func openRocketMQ(o *sourcesv1alpha1.RocketMQSource, set *objects.Set) (func(sourceRun) source.Source, error) {
	options := rocketmq.Options{
		Namespace: o.Namespace, Name: o.Name, Endpoint: o.Spec.Endpoint, InstanceNamespace: o.Spec.InstanceNamespace,
		Topics: o.Spec.Topics, Group: o.Spec.ConsumerGroup, FIFO: o.Spec.Ordering == sourcesv1alpha1.OrderingFIFO,
		Invisible: o.Invisible(), BatchSize: int(*o.Spec.BatchSize), Extensions: overrides(o),
	}
	if f := o.Spec.Filter; f != nil {
		options.Tag, options.SQL = f.Tag, f.SQL
	}
	secret := secrets(o, set)
	if c := o.Spec.Net.Credentials; c != nil {
		options.Credentials = &rocketmq.Credentials{
			AccessKey: secret(c.AccessKey), SecretKey: secret(c.SecretKey), SecurityToken: secret(c.SecurityToken),
		}
	}
	var err error
	if options.TLS, err = newTLS(&o.Spec.Net.TLS, secret); err != nil {
		return nil, err
	}
	return func(run sourceRun) source.Source {
		options := options
		options.Dialer, options.Logger, options.Outlet = run.dialer, run.log, run.outlet
		return rocketmq.New(options)
	}, nil
}

// overrides are the extensions that each event of a source gets.
func overrides(o sourcesv1.Source) (extensions []event.Attribute) {
	if overrides := o.Common().CloudEventOverrides; overrides != nil {
		for _, name := range slices.Sorted(maps.Keys(overrides.Extensions)) {
			extensions = append(extensions, event.Attribute{Name: name, Value: overrides.Extensions[name]})
		}
	}
	return extensions
}

// secrets returns what looks up the values that a source has in Secrets. One that is missing is empty.
func secrets(o sourcesv1.Source, set *objects.Set) func(sourcesv1.SecretValueFromSource) string {
	return func(v sourcesv1.SecretValueFromSource) string {
		if v.SecretKeyRef == nil {
			return ""
		}
		value, _ := set.Secret(o.GetNamespace(), v.SecretKeyRef.Name, v.SecretKeyRef.Key)
		return string(value)
	}
}

// newTLS returns how to encrypt a connection; nil if it is not to be. Its errors do not repeat what Secrets hold.
func newTLS(t *sourcesv1.TLSSpec, secret func(sourcesv1.SecretValueFromSource) string) (*tls.Config, error) {
	if !t.Enable {
		return nil, nil //nolint:nilnil // that there is none is no error
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := secret(t.CACert); ca != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("spec.net.tls.caCert: no certificate in PEM format is in the Secret")
		}
	}
	if cert := secret(t.Cert); cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(secret(t.Key)))
		if err != nil {
			return nil, fmt.Errorf("spec.net.tls.cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
