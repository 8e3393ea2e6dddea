package chaos

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The types of the events.
const (
	eventType = "chaos.event"
	replyType = "chaos.reply"
)

// deed is what a subscriber does with a request besides answering with a status.
type deed uint8

const (
	plain deed = iota
	reset      // breaks the connection instead of answering
	hang       // does not answer until the client has gone
	reply      // answers with an event
)

// answer is what a subscriber does with one request.
type answer struct {
	deed       deed
	status     int
	retryAfter int // seconds; 0 for no such header
}

func (a answer) ok() bool { return a.status/100 == 2 }

// script is what a subscriber does with the requests for one event, in their order; the last answer is for all that follow.
type script []answer

// at returns the answer to request number n, counted from 1.
func (s script) at(n int) answer { return s[min(n, len(s))-1] }

// last is the answer that decides where the event ends.
func (s script) last() answer { return s[len(s)-1] }

// role is one Trigger with its subscriber.
type role struct {
	name string
	// filter and delivery are fields of the Trigger's spec, annotation one of its annotations.
	filter, delivery, annotation string
	// matches says in Go what the filter says; never for a role that hears replies.
	matches func(number int) bool
	// hears says that the filter selects replies.
	hears bool
	// write chooses the script of an event.
	write func(*rand.Rand) script
	// takes is how long an answer takes.
	takes time.Duration
	// retries is what delivery says.
	retries int
	// fragile subscribers have a server of their own, which is taken down at times.
	fragile bool
	// sink says that the Trigger has the dead letter sink; without it what it gives up is parked.
	sink bool
}

func roles() []*role {
	return []*role{
		{
			name: "steady", matches: func(int) bool { return true }, write: always(http.StatusOK), sink: true,
			filter: `filters: [{exact: {type: chaos.event}}]`, retries: 10,
		},
		{
			name: "half", matches: func(n int) bool { return n%2 == 0 }, write: always(http.StatusNoContent), sink: true,
			filter: `filters: [{cel: 'ce.type == "chaos.event" && int(ce.number) % 2 == 0'}]`, retries: 10,
		},
		{
			name: "flaky", matches: digit(0, 1, 2), write: flaky, sink: true, retries: 12,
			filter:   `filters: [{exact: {type: chaos.event}}, {any: [{exact: {digit: "0"}}, {exact: {digit: "1"}}, {exact: {digit: "2"}}]}]`,
			delivery: `retry: 12, backoffPolicy: exponential, backoffDelay: PT0.05S, retryAfterMax: PT1S`,
		},
		{
			name: "hanging", matches: digit(3), write: hanging, sink: true, retries: 12,
			filter:   `filters: [{cesql: "type = 'chaos.event' AND digit = '3'"}]`,
			delivery: `retry: 12, backoffPolicy: linear, backoffDelay: PT0.2S, timeout: PT2S`,
		},
		{
			name: "slow", matches: digit(4, 5), write: always(http.StatusAccepted), takes: 100 * time.Millisecond, sink: true,
			filter: `filter: {cel: 'ce.type == "chaos.event" && ce.digit in ["4", "5"]'}`, retries: 10,
			annotation: `millrace.dev/max-concurrency: "6"`,
		},
		{
			name: "fragile", matches: digit(6, 7), write: always(http.StatusOK), fragile: true, sink: true, retries: 50,
			filter:     `filters: [{cel: 'ce.type == "chaos.event" && (ce.digit == "6" || ce.digit == "7")'}]`,
			delivery:   `retry: 50, backoffPolicy: exponential, backoffDelay: PT0.1S`,
			annotation: `millrace.dev/backoff-max: PT1S`,
		},
		{
			name: "refusing", matches: digit(8), write: refusing, sink: true, retries: 2,
			filter:   `filter: {attributes: {type: chaos.event, digit: "8"}}`,
			delivery: `retry: 2, backoffPolicy: linear, backoffDelay: PT0.1S`,
		},
		{
			name: "parking", matches: digit(9), write: refusing, retries: 2,
			filter:   `filter: {attributes: {type: chaos.event, digit: "9"}}`,
			delivery: `retry: 2, backoffPolicy: linear, backoffDelay: PT0.1S`,
		},
		{
			name: "asking", matches: digit(1, 6), write: replying, sink: true, retries: 12,
			filter:   `filters: [{exact: {type: chaos.event}}, {any: [{suffix: {digit: "1"}}, {prefix: {digit: "6"}}]}]`,
			delivery: `retry: 12, backoffPolicy: exponential, backoffDelay: PT0.05S`,
		},
		{
			name: "listening", matches: func(int) bool { return false }, hears: true, write: always(http.StatusOK), sink: true,
			filter: `filters: [{exact: {type: chaos.reply}}]`, retries: 10,
		},
	}
}

func digit(digits ...int) func(int) bool {
	return func(number int) bool {
		for _, d := range digits {
			if number%10 == d {
				return true
			}
		}
		return false
	}
}

func always(status int) func(*rand.Rand) script {
	return func(*rand.Rand) script { return script{{status: status}} }
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// passing is a failure that is worth another attempt.
func passing(r *rand.Rand) answer {
	a := answer{status: one(r, 404, 408, 409, 429, 500, 502, 503, 503, 504)}
	switch {
	case r.IntN(8) == 0:
		return answer{deed: reset}
	case (a.status == 429 || a.status == 503) && r.IntN(2) == 0:
		a.retryAfter = 1 + r.IntN(100) // capped by the Trigger at a second, or ignored
	}
	return a
}

// flaky fails for a third of the events, up to three times.
func flaky(r *rand.Rand) script {
	var s script
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(3) {
			s = append(s, passing(r))
		}
	}
	return append(s, answer{status: one(r, 200, 201, 202, 204)})
}

func hanging(r *rand.Rand) script {
	if r.IntN(12) == 0 {
		return script{{deed: one(r, hang, reset)}, {status: 200}}
	}
	return script{{status: 200}}
}

// refusing never takes a third of the events: some it rejects, for others it always fails.
func refusing(r *rand.Rand) script {
	switch r.IntN(6) {
	case 0:
		return script{{status: one(r, 400, 401, 403, 410, 422, 301)}}
	case 1:
		return script{{status: one(r, 500, 503, 429, 404)}}
	default:
		return script{{status: 200}}
	}
}

func replying(r *rand.Rand) script {
	var s script
	if r.IntN(5) == 0 {
		s = append(s, passing(r))
	}
	return append(s, answer{deed: reply, status: 200})
}

// rejected reports whether an answer is one that is not tried again.
func rejected(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	}
	return status/100 == 3 || status/100 == 4
}

// plan knows what everybody does.
type plan struct {
	seed  uint64
	roles []*role
	named map[string]*role
}

func newPlan(seed uint64) *plan {
	p := &plan{seed: seed, roles: roles(), named: map[string]*role{}}
	for _, r := range p.roles {
		p.named[r.name] = r
	}
	return p
}

// script is what the role's subscriber does with the event. It is a pure function of seed, role and id.
func (p *plan) script(r *role, id string) script {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.name + "/" + id))
	return r.write(rand.New(rand.NewPCG(p.seed, h.Sum64())))
}

// An event's id is its number, the try to have that number accepted, and its place in a batch. No id is ever posted twice,
// so what arrives twice was repeated by the broker.
func eventID(number, try, place int) string { return fmt.Sprintf("%d-%d-%d", number, try, place) }

// replyPrefix makes of an event's id that of the reply to it.
const replyPrefix = "re-"

// numberOf returns the number in an event's id; false if the id is not one of ours.
func numberOf(id string) (int, bool) {
	text, _, found := strings.Cut(id, "-")
	n, err := strconv.Atoi(text)
	return n, found && err == nil
}

// manifest is the Broker with all Triggers; urls gives the subscriber of each role and, as "sink", the dead letter sink.
func (p *plan) manifest(replicas int, urls func(name string) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: %s\n", brokerName)
	fmt.Fprintf(&b, "  annotations: {millrace.dev/replicas: %q}\n", strconv.Itoa(replicas))
	for _, r := range p.roles {
		fmt.Fprintf(&b, "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: %s\n", r.name)
		if r.annotation != "" {
			fmt.Fprintf(&b, "  annotations: {%s}\n", r.annotation)
		}
		fmt.Fprintf(&b, "spec:\n  broker: %s\n  subscriber: {uri: %q}\n  %s\n", brokerName, urls(r.name), r.filter)
		delivery := r.delivery
		if delivery == "" {
			delivery = fmt.Sprintf("retry: %d, backoffDelay: PT0.1S", r.retries)
		}
		if r.sink {
			delivery += fmt.Sprintf(", deadLetterSink: {uri: %q}", urls(sinkName))
		}
		fmt.Fprintf(&b, "  delivery: {%s}\n", delivery)
	}
	return b.String()
}

const (
	brokerName = "ledger"
	sinkName   = "sink"
)
