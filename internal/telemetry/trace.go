package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

// Tracer makes OpenTelemetry spans. It implements observe.Tracer.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	context  propagation.TraceContext
}

// NewTracer returns a Tracer that sends spans by OTLP over HTTP, or nil if the environment asks for none. It asks with
// OTEL_TRACES_EXPORTER=otlp, OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT; OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME,
// OTEL_BSP_… and the other variables of OpenTelemetry's specification hold as well. name is that of the program.
func NewTracer(ctx context.Context, name, version string, log *slog.Logger) (*Tracer, error) {
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return nil, nil
	case exporter != "" && exporter != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%q: want otlp or none", exporter)
	case exporter == "" && os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return nil, nil
	}
	for _, key := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := os.Getenv(key); p != "" && p != "http/protobuf" {
			return nil, fmt.Errorf("%s=%q: Millrace speaks http/protobuf; most collectors take it at port 4318", key, p)
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare to send traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", name), attribute.String("service.version", version),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe this program for traces: %w", err)
	}
	// The SDK has one handler for the program. Without it, what goes wrong is printed beside the log.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.WarnContext(ctx, "cannot send traces", slog.Any("error", err)) }))
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &Tracer{provider: provider, tracer: provider.Tracer(scope, trace.WithInstrumentationVersion(version))}, nil
}

// Shutdown sends the spans that wait, for as long as ctx allows.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// carrier reads and writes the headers of an event.
type carrier struct{ *event.Event }

// Get implements propagation.TextMapCarrier: the header, or the attribute of CloudEvents' distributed tracing extension.
func (c carrier) Get(key string) string {
	for _, h := range c.Headers {
		if strings.EqualFold(h.Name, key) {
			return h.Value
		}
	}
	for _, h := range c.Headers {
		if h.Name == "Traceparent" {
			return "" // tracestate belongs to it
		}
	}
	return c.Value(key)
}

// Set implements propagation.TextMapCarrier. It never changes an attribute: those are the producer's.
func (c carrier) Set(key, value string) {
	name := strings.ToUpper(key[:1]) + key[1:]
	for i := range c.Headers {
		if c.Headers[i].Name == name {
			c.Headers[i].Value = value
			return
		}
	}
	c.Headers = append(c.Headers, event.Header{Name: name, Value: value})
}

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string { return []string{"traceparent", "tracestate"} }

// Begin implements observe.Tracer.
func (t *Tracer) Begin(s observe.Step, at time.Time, b *observe.Broker, of *observe.Trigger, e *event.Event) observe.Span {
	ctx := context.Background()
	if c := (carrier{e}); c.Get("traceparent") != "" {
		ctx = t.context.Extract(ctx, c)
	}
	if parent := trace.SpanContextFromContext(ctx); parent.IsValid() && !parent.IsSampled() || !parent.IsValid() && s != observe.Arrive && s != observe.Read {
		return nil
	}
	kind, name := describe(s, b, of)
	ctx, span := t.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithSpanKind(kind))
	if !span.IsRecording() {
		return nil
	}
	span.SetAttributes(attributes(s, b, of, e)...)
	return &recorded{span: span, ctx: ctx, context: t.context}
}

// describe returns the kind and name of a step's span, which is "{operation} {destination}" by the conventions for messaging.
func describe(s observe.Step, b *observe.Broker, of *observe.Trigger) (trace.SpanKind, string) {
	switch s {
	case observe.Arrive:
		return trace.SpanKindServer, "receive " + b.Key
	case observe.Read:
		return trace.SpanKindConsumer, "read " + b.Key
	case observe.Store:
		return trace.SpanKindProducer, "publish " + b.Key
	case observe.Select:
		return trace.SpanKindConsumer, "match " + b.Key
	default:
		return trace.SpanKindClient, "deliver " + of.Key
	}
}

func attributes(s observe.Step, b *observe.Broker, of *observe.Trigger, e *event.Event) []attribute.KeyValue {
	all := []attribute.KeyValue{
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.destination.name", b.Key),
		attribute.String("cloudevents.event_id", e.Value(event.ID)),
		attribute.String("cloudevents.event_source", e.Value(event.Source)),
		attribute.String("cloudevents.event_type", e.Value(event.Type)),
		attribute.String("cloudevents.event_spec_version", e.Value(event.SpecVersion)),
	}
	if subject := e.Value(event.Subject); subject != "" {
		all = append(all, attribute.String("cloudevents.event_subject", subject))
	}
	if of != nil {
		all = append(all, attribute.String("messaging.destination.subscription.name", of.Key))
	}
	if s == observe.Arrive || s == observe.Deliver {
		all = append(all, attribute.String("http.request.method", "POST"))
	}
	return all
}

// recorded is a span that is recorded. It implements observe.Span.
type recorded struct {
	span    trace.Span
	ctx     context.Context //nolint:containedctx // it is how OpenTelemetry hands a span on
	context propagation.TraceContext
}

// Tie implements observe.Span.
func (r *recorded) Tie(e *event.Event) { r.context.Inject(r.ctx, carrier{e}) }

// Headers implements observe.Span.
func (r *recorded) Headers() []event.Header {
	var e event.Event
	r.Tie(&e)
	return e.Headers
}

// End implements observe.Span.
func (r *recorded) End(status int, reason string) {
	if status != 0 {
		r.span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if reason != "" {
		r.span.SetAttributes(attribute.String("error.type", reason))
		r.span.SetStatus(codes.Error, reason)
	}
	r.span.End()
}
