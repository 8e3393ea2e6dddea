package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
	"millrace.dev/test/harness"
)

// eventsVariable makes TestWhyAgrees… take so many events.
const eventsVariable = "MILLRACE_JOURNAL_EVENTS"

// unsteady is the subscribers of several Triggers, which fail in all ways, and write down every answer they give.
type unsteady struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string][]int // by path and id; 0 where the connection is cut
}

func newUnsteady(t *testing.T) *unsteady {
	t.Helper()
	s := &unsteady{answers: map[string][]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		key := r.URL.Path + " " + r.Header.Get("Ce-Id")
		s.mu.Lock()
		n := len(s.answers[key])
		code := answerOf(key, n)
		s.answers[key] = append(s.answers[key], code)
		s.mu.Unlock()
		if code == 0 {
			panic(http.ErrAbortHandler) // cuts the connection
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	return s
}

// answerOf is the n-th answer to an event: most are taken at once, some refused for ever, some after a failure or two.
func answerOf(key string, n int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key)
	switch v := h.Sum32() % 100; {
	case v < 2:
		return http.StatusBadRequest
	case v < 5 && n < 2:
		return http.StatusServiceUnavailable
	case v < 8 && n == 0:
		return 0
	case v < 9:
		return http.StatusInternalServerError
	default:
		return http.StatusOK
	}
}

func (s *unsteady) of(path, id string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.answers[path+" "+id])
}

const whyManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: default, annotations: {eventing.knative.dev/broker.class: Millrace}}
spec: {delivery: {retry: 3, backoffPolicy: linear, backoffDelay: PT0.05S}}
`

// The filters of the Triggers t0, t1 and so on.
var whyFilters = []string{
	`[{exact: {type: order.paid}}]`,
	`[{prefix: {type: order.}}, {not: {suffix: {source: "7"}}}]`,
	`[{any: [{exact: {subject: s1}}, {exact: {subject: s2}}]}]`,
	`[{cesql: "amount > 50 AND type LIKE 'order.%'"}]`,
	`[{cel: "ce.type == 'chat.sent' && ce.subject != 's3'"}]`,
	`[]`,
}

func whyTriggers(url string) string {
	var b strings.Builder
	b.WriteString(whyManifest)
	for i, filter := range whyFilters {
		fmt.Fprintf(&b, "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: t%d, namespace: default}\n"+
			"spec: {broker: b, filters: %s, subscriber: {uri: %q}}\n", i, filter, url+"/t"+strconv.Itoa(i))
	}
	return b.String()
}

func randomEvent(r *rand.Rand, i int) *event.Event {
	e := &event.Event{Data: []byte(`{}`)}
	for name, value := range map[string]string{
		event.SpecVersion: "1.0", event.ID: "w" + strconv.Itoa(i), event.Source: "/shop/" + strconv.Itoa(r.IntN(10)),
		event.Type:    []string{"order.paid", "order.sent", "chat.sent", "user.left"}[r.IntN(4)],
		event.Subject: "s" + strconv.Itoa(r.IntN(5)), "amount": strconv.Itoa(r.IntN(100)),
	} {
		e.Set(name, value, event.String)
	}
	return e
}

// What `why` says of each of many random events, while subscribers fail in all ways, a filter is killed and the store is killed and
// started again, is what the filter engine and the books of the subscribers say. Where it knows less, it says so.
func TestWhyAgreesWithTheFilterEngineAndTheSubscribers(t *testing.T) {
	count := 600
	if n, err := strconv.Atoi(os.Getenv(eventsVariable)); err == nil {
		count = n
	}
	t.Parallel()
	s := newUnsteady(t)
	c := harness.NewCluster(t, programs.Dir(t), writeManifest(t, whyTriggers(s.URL)))
	c.StartAll(t, 2)
	r := rand.New(rand.NewPCG(5, 8))
	events := make([]*event.Event, count)
	for i := range events {
		events[i] = randomEvent(r, i)
	}
	post := func(part []*event.Event, during func()) {
		var g errgroup.Group
		g.SetLimit(16)
		for i, e := range part {
			g.Go(func() error { return postEvent(c.URL("b"), e) })
			if i == len(part)/2 {
				during()
			}
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	third := count / 3
	post(events[:third], func() { c.Filters[0].Kill() })
	c.Filters = c.Filters[1:]
	c.StartFilter(t)
	c.WaitReady(t)
	post(events[third:2*third], func() {
		c.NATS.Kill()
		c.StartNATS(t)
	})
	c.WaitReady(t)
	post(events[2*third:], func() { c.Filters[0].Stop(t) })
	c.Filters = c.Filters[1:]

	filters := compileWhy(t, c.Manifests)
	client := &adminapi.Client{URL: c.Filters[0].Admin}
	var incomplete atomic.Int64
	var g errgroup.Group
	g.SetLimit(8)
	for _, e := range events {
		g.Go(func() error {
			admits, err := agreeAtLast(t.Context(), client, s, filters, e)
			if admits {
				incomplete.Add(1)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := incomplete.Load(); n > int64(count)/4 {
		t.Errorf("the journal misses records of %d events of %d", n, count)
	}
	t.Logf("why agrees on %d events; of %d of them the journal lacks records, and says so", count, incomplete.Load())
}

// agreeAtLast waits until why agrees, for what happens may not be over. It takes an answer that admits to be incomplete only if that does
// not change for a while.
func agreeAtLast(ctx context.Context, c *adminapi.Client, s *unsteady, filters map[string]*trigger.Filter, e *event.Event) (incomplete bool, err error) {
	admitted := 0
	for deadline := time.Now().Add(2 * harness.Patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		incomplete, err = agree(ctx, c, s, filters, e)
		switch {
		case err == nil && !incomplete:
			return false, nil
		case err == nil:
			if admitted++; admitted == 5 {
				return true, nil
			}
		}
	}
	return incomplete, fmt.Errorf("%s: %w", e.Value(event.ID), cmp.Or(err, errors.New("it is not always incomplete")))
}

// postPause is the time between two tries to post an event.
const postPause = 50 * time.Millisecond

// postEvent sends the event until it is accepted: the store may be away.
func postEvent(url string, e *event.Event) error {
	var last error
	for range 600 {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(string(e.Data)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		for _, a := range e.Attributes {
			req.Header.Set("Ce-"+a.Name, a.Value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err
			time.Sleep(postPause)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusAccepted {
			return nil
		}
		last = fmt.Errorf("%s", resp.Status)
		time.Sleep(postPause)
	}
	return last
}

func compileWhy(t *testing.T, manifests string) map[string]*trigger.Filter {
	t.Helper()
	set, err := objects.Load([]string{manifests})
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := trigger.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	filters := map[string]*trigger.Filter{}
	for _, o := range set.Triggers {
		f, errs := compiler.Compile(o)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		filters[o.Namespace+"/"+o.Name] = f
	}
	return filters
}

// agree compares what why says of an event with what is known from outside. incomplete says that it knows less, and owns up to it.
func agree(ctx context.Context, c *adminapi.Client, s *unsteady, filters map[string]*trigger.Filter, e *event.Event) (incomplete bool, err error) {
	trace, err := c.Trace(ctx, e.Value(event.ID), "", "")
	if err != nil {
		return false, err
	}
	lack := func(format string, args ...any) error {
		if admitsToLack(&trace) {
			incomplete = true
			return nil
		}
		return fmt.Errorf(format+", and nothing is said to be missing: %+v", append(args, trace)...)
	}
	if len(trace.Events) != 1 {
		return incomplete, lack("%d events", len(trace.Events))
	}
	got := &trace.Events[0]
	if got.Source != e.Value(event.Source) || got.Type != e.Value(event.Type) || got.Broker != "default/b" {
		return false, fmt.Errorf("another event: %+v", got)
	}
	if len(got.Received) == 0 || got.Stored == nil {
		if err := lack("it was not received or not stored"); err != nil || got.Stored == nil {
			return incomplete, err
		}
	}
	in := trigger.NewInput(e)
	for name, f := range filters {
		i := slices.IndexFunc(got.Triggers, func(x adminapi.TriggerTrace) bool { return x.Trigger == name })
		if i < 0 {
			return false, fmt.Errorf("nothing about %s", name)
		}
		tt := &got.Triggers[i]
		in.Reset(e)
		if want := f.Match(in); tt.Matched != want {
			return false, fmt.Errorf("%s: matched %v, the filter engine says %v", name, tt.Matched, want)
		}
		if !tt.Matched {
			if len(tt.Failures) == 0 || tt.Note != "" {
				return false, fmt.Errorf("%s: no reason why it did not match: %+v", name, tt)
			}
			continue
		}
		if err := agreeOnAttempts(tt, s.of("/"+strings.TrimPrefix(name, "default/"), e.Value(event.ID))); err != nil {
			if err := lack("%s: %v", name, err); err != nil {
				return false, err
			}
		}
	}
	return incomplete, nil
}

// admitsToLack says whether the answer owns up to lacking records.
func admitsToLack(t *adminapi.Trace) bool {
	return len(t.Gaps) > 0 || slices.ContainsFunc(t.Events, func(e adminapi.EventTrace) bool {
		return e.Missing != nil || slices.ContainsFunc(e.Triggers, func(tt adminapi.TriggerTrace) bool { return tt.Missing != nil })
	})
}

func agreeOnAttempts(tt *adminapi.TriggerTrace, answers []int) error {
	// What was cut may not have reached the subscriber either.
	told, cut := []int{}, 0
	for _, a := range tt.Attempts {
		if a.Status == 0 {
			cut++
			continue
		}
		told = append(told, a.Status)
	}
	given := []int{}
	for _, status := range answers {
		if status == 0 {
			cut--
			continue
		}
		given = append(given, status)
	}
	slices.Sort(told)
	slices.Sort(given)
	// What the subscriber has not taken was given up, or will be.
	fates := []string{"parked", "retrying", "waiting"}
	if slices.Contains(answers, http.StatusOK) {
		fates = []string{"delivered"}
	}
	switch {
	case len(answers) == 0:
		return errors.New("the subscriber has seen nothing of it yet")
	case !slices.Equal(told, given), cut < 0:
		return fmt.Errorf("it tells of answers %v, the subscriber gave %v", told, given)
	case !slices.Contains(fates, tt.Fate):
		return fmt.Errorf("its fate is %q, what the subscriber gave is %v", tt.Fate, answers)
	}
	return nil
}
