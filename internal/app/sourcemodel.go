package app

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source/kafka"
	"millrace.dev/pkg/stream"
)

// The reasons why a source does not run that the data plane itself finds.
const (
	reasonPaused        = "Paused"
	reasonSecretInvalid = "SecretInvalid"
)

// sourceModel is one source object, ready to be run or with the reason why it is not.
type sourceModel struct {
	key, uid string
	// fingerprint changes with everything that the source must be started anew for.
	fingerprint [sha256.Size]byte
	// reason and message are empty if the source is to run.
	reason, message string

	kafka      kafka.Options // but for what it is run with: dialer, outlet, logger
	sink, dead *sinkModel    // dead may be nil
	policy     delivery.Policy
	drop       bool
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
func newSources(set *objects.Set, brokers map[string]*brokerModel) (sources []*sourceModel, problems []objects.Problem) {
	for _, o := range set.KafkaSources {
		m, found := newKafkaModel(o, set, brokers)
		sources, problems = append(sources, m), append(problems, found...)
	}
	return sources, problems
}

func newKafkaModel(o *sourcesv1.KafkaSource, set *objects.Set, brokers map[string]*brokerModel) (*sourceModel, []objects.Problem) {
	m := &sourceModel{key: o.Namespace + "/" + o.Name, uid: string(o.UID)}
	fail := func(reason, message string) (*sourceModel, []objects.Problem) {
		m.reason, m.message = reason, message
		m.fingerprint = sha256.Sum256([]byte(reason + message))
		return m, nil
	}
	if c := meta.FindStatusCondition(o.Status.Conditions, eventingv1.ConditionReady); c != nil && c.Status == metav1.ConditionFalse {
		return fail(c.Reason, c.Message)
	}
	if o.Paused() {
		return fail(reasonPaused, "remove the annotation "+sourcesv1.PausedAnnotation+", or raise spec.consumers, to have it go on")
	}
	var err error
	if m.sink, err = newSinkModel(&o.Spec.Sink, o.Status.SinkURI, brokers); err != nil {
		return fail(sourcesv1.ReasonSinkUnresolved, err.Error())
	}
	m.sink.host = o.Annotations[sourcesv1.HostAnnotation]
	if d := o.Spec.Delivery; d != nil && d.DeadLetterSink != nil {
		if m.dead, err = newSinkModel(d.DeadLetterSink, o.Status.DeadLetterSinkURI, brokers); err != nil {
			return fail(eventingv1.ReasonDeadLetterSinkUnresolved, err.Error())
		}
	}
	policy, errs := sourcePolicy(o)
	if len(errs) > 0 {
		m.reason, m.message = reasonInvalidDelivery, errs.ToAggregate().Error()
		return m, set.Explain(objects.Key{Kind: sourcesv1.KindKafkaSource, Namespace: o.Namespace, Name: o.Name}, errs)
	}
	m.policy, m.drop = policy, o.Annotations[sourcesv1.UndeliverableAnnotation] == "drop"
	if m.kafka, err = kafkaOptions(o, set); err != nil {
		return fail(reasonSecretInvalid, err.Error())
	}
	m.fingerprint = fingerprint(o, set, m)
	return m, nil
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
func fingerprint(o *sourcesv1.KafkaSource, set *objects.Set, m *sourceModel) [sha256.Size]byte {
	var secrets [][]byte
	for _, ref := range o.SecretRefs() {
		value, _ := set.Secret(o.Namespace, ref.Name, ref.Key)
		secrets = append(secrets, value)
	}
	sinks := []any{m.sink.String(), m.sink.limits, m.sink.broker}
	if m.dead != nil {
		sinks = append(sinks, m.dead.String(), m.dead.limits, m.dead.broker)
	}
	text, _ := json.Marshal([]any{o.Spec, o.Labels, o.Annotations, secrets, sinks}) // none of it can fail
	return sha256.Sum256(text)
}

// sourcePolicy is the delivery policy of a source: that of its spec, over what its annotations say.
func sourcePolicy(o *sourcesv1.KafkaSource) (delivery.Policy, field.ErrorList) {
	p := delivery.DefaultPolicy()
	if n, err := strconv.Atoi(o.Annotations[sourcesv1.RetryCountAnnotation]); err == nil {
		p.Retries = n
	}
	if n, err := strconv.Atoi(o.Annotations[sourcesv1.RequestTimeoutAnnotation]); err == nil {
		p.Timeout = time.Duration(n) * time.Second
	}
	ownDelay := o.Spec.Delivery != nil && o.Spec.Delivery.BackoffDelay != nil
	if n, err := strconv.Atoi(o.Annotations[sourcesv1.RetryIntervalAnnotation]); err == nil && !ownDelay {
		p.BackoffDelay = time.Duration(n) * time.Second
		p.BackoffMax = p.BackoffDelay // the same time between all attempts
	}
	return p.Resolve(o.Spec.Delivery, nil, o.Annotations)
}

func kafkaOptions(o *sourcesv1.KafkaSource, set *objects.Set) (kafka.Options, error) {
	options := kafka.Options{
		Namespace: o.Namespace, Name: o.Name, Servers: o.Spec.BootstrapServers, Topics: o.Spec.Topics, Group: o.Group(),
		FromStart: o.Spec.InitialOffset == sourcesv1.OffsetEarliest, KeyType: kafka.KeyType(o.Labels[sourcesv1.KeyTypeLabel]),
	}
	if o.Spec.Ordering != nil {
		options.Order = map[sourcesv1.Ordering]kafka.Order{
			sourcesv1.OrderingUnordered: kafka.Unordered, sourcesv1.OrderingKey: kafka.ByKey,
		}[*o.Spec.Ordering]
	}
	if overrides := o.Spec.CloudEventOverrides; overrides != nil {
		for _, name := range slices.Sorted(maps.Keys(overrides.Extensions)) {
			options.Extensions = append(options.Extensions, event.Attribute{Name: name, Value: overrides.Extensions[name]})
		}
	}
	secret := func(v sourcesv1.SecretValueFromSource) string {
		if v.SecretKeyRef == nil {
			return ""
		}
		value, _ := set.Secret(o.Namespace, v.SecretKeyRef.Name, v.SecretKeyRef.Key)
		return string(value)
	}
	var err error
	if s := o.Spec.Net.SASL; s.Enable {
		if options.Mechanism, err = kafka.NewMechanism(secret(s.Type), secret(s.User), secret(s.Password)); err != nil {
			return options, fmt.Errorf("spec.net.sasl.type: %w", err)
		}
	}
	if t := o.Spec.Net.TLS; t.Enable {
		options.TLS, err = newTLS(secret(t.CACert), secret(t.Cert), secret(t.Key))
	}
	return options, err
}

// newTLS returns a configuration from PEM texts, each of which may be empty. Its errors do not repeat them.
func newTLS(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("spec.net.tls.caCert: no certificate in PEM format is in the Secret")
		}
	}
	if cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			return nil, fmt.Errorf("spec.net.tls.cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
