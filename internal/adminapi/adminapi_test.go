package adminapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

const broker = "default/live"

// fixture is the API on a real store, with a Broker and the Triggers a, b (not ready) and, deleted, c.
type fixture struct {
	conn    *stream.Conn
	names   *stream.Names
	faults  *faults
	handler *adminapi.Handler
	client  *adminapi.Client
	ahead   atomic.Int64 // how much later than now the API thinks it is
}

// faults lets writes to the store fail.
type faults struct {
	*stream.Conn
	publisher *stream.Publisher

	deletes  func(sequence uint64) error
	publish  func() error
	gets     func(sequence uint64)
	listings atomic.Int64
}

func (f *faults) ListParked(ctx context.Context, n *stream.Names, q stream.ParkedQuery) (stream.ParkedPage, error) {
	f.listings.Add(1)
	return f.Conn.ListParked(ctx, n, q)
}

func (f *faults) GetParked(ctx context.Context, n *stream.Names, sequence uint64) (*stream.Parked, error) {
	if f.gets != nil {
		f.gets(sequence)
	}
	return f.Conn.GetParked(ctx, n, sequence)
}

func (f *faults) DeleteParked(ctx context.Context, n *stream.Names, sequence uint64) error {
	if f.deletes != nil {
		if err := f.deletes(sequence); err != nil {
			return err
		}
	}
	return f.Conn.DeleteParked(ctx, n, sequence)
}

func (f *faults) PublishRetry(ctx context.Context, to *stream.Names, uid string, m stream.Message, at stream.Progress) (uint64, error) {
	if f.publish != nil {
		if err := f.publish(); err != nil {
			return 0, err
		}
	}
	return f.publisher.PublishRetry(ctx, to, uid, m, at)
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	server, err := devserver.Start(devserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := stream.Dial(stream.ConnOptions{InProcess: server, Name: t.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	f := &fixture{
		conn: conn, names: stream.NewNames("default", "live", "0123456789abcdef"),
		faults: &faults{Conn: conn, publisher: stream.NewPublisher(conn, 0)},
	}
	if err := conn.Ensure(t.Context(), f.names, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	catalog := adminapi.Catalog{broker: {Names: f.names, Triggers: map[string]adminapi.Trigger{
		"uid-a": {Name: "default/a", Ready: true}, "uid-b": {Name: "default/b"},
	}}}
	f.handler = adminapi.New(adminapi.Options{
		Reader: f.faults, Remover: f.faults, Redriver: f.faults, Logger: slog.New(slog.DiscardHandler),
		Catalog: func() adminapi.Catalog { return catalog },
		Now:     func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
	})
	s := httptest.NewServer(f.handler)
	t.Cleanup(s.Close)
	f.client = &adminapi.Client{URL: s.URL}
	return f
}

func newEvent(id string) *event.Event {
	e := &event.Event{Data: []byte(`{"n":"` + id + `"}`)}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, id, event.String)
	e.Set(event.Source, "/test", event.String)
	e.Set(event.Type, "com.example.test", event.String)
	e.Set(event.DataContentType, "application/json", event.String)
	return e
}

// park parks count events with the given progress, with ids made of the Trigger's UID and a number.
func (f *fixture) park(t *testing.T, uid string, count int, p stream.Progress) {
	t.Helper()
	for i := range count {
		e := newEvent(fmt.Sprintf("%s/%d/%s", uid, i, p.Cause))
		if p.DeadLetter {
			e = delivery.DeadLetter(e, delivery.Failure{Trigger: "default/a", Attempts: 3})
		}
		if _, err := f.faults.publisher.Park(t.Context(), f.names, uid, stream.Message{Event: e}, p); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fixture) parkSome(t *testing.T) {
	t.Helper()
	f.park(t, "uid-a", 5, stream.Progress{Attempt: 3, Code: 503, Cause: "overloaded, request 1234", First: time.Now()})
	f.park(t, "uid-b", 4, stream.Progress{Attempt: 1, Code: 400, Cause: "no such Room"})
	f.park(t, "uid-c", 3, stream.Progress{Attempt: 2, Cause: "connection refused"})
	f.park(t, "uid-a", 2, stream.Progress{Attempt: 3, Code: 400, Cause: "no such room"})
}

func (f *fixture) count(t *testing.T, stream string) uint64 {
	t.Helper()
	st, err := f.conn.StreamState(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return st.Messages
}

func (f *fixture) left(t *testing.T, parked, retries uint64) {
	t.Helper()
	if p, r := f.count(t, f.names.Parked), f.count(t, f.names.Retries); p != parked || r != retries {
		t.Errorf("%d parked and %d waiting for delivery, want %d and %d", p, r, parked, retries)
	}
}

func (f *fixture) redrive(t *testing.T, req adminapi.RedriveRequest) (*adminapi.RedriveResult, error) {
	t.Helper()
	return f.client.Redrive(t.Context(), broker, req, func(adminapi.Line[adminapi.RedriveResult]) {})
}

func (f *fixture) purge(t *testing.T, s adminapi.Selection) (*adminapi.PurgeResult, error) {
	t.Helper()
	return f.client.Purge(t.Context(), broker, adminapi.PurgeRequest{Selection: s}, func(adminapi.Line[adminapi.PurgeResult]) {})
}

func code(n int) *int { return &n }

func TestBrokers(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	got, err := f.client.Brokers(t.Context())
	if err != nil || len(got) != 1 || got[0].Bytes == 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	got[0].Bytes = 0
	if diff := cmp.Diff([]adminapi.BrokerInfo{{Namespace: "default", Name: "live", Parked: 14}}, got); diff != "" {
		t.Error(diff)
	}
}

// selections and the sequences they select of what parkSome parks.
var selections = map[string]struct {
	selection adminapi.Selection
	want      []uint64
}{
	"all":            {adminapi.Selection{All: true}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}},
	"trigger":        {adminapi.Selection{Trigger: "default/a"}, []uint64{1, 2, 3, 4, 5, 13, 14}},
	"UID":            {adminapi.Selection{Trigger: "uid-c"}, []uint64{10, 11, 12}},
	"no such UID":    {adminapi.Selection{Trigger: "uid-x"}, nil},
	"code":           {adminapi.Selection{Code: code(400)}, []uint64{6, 7, 8, 9, 13, 14}},
	"no answer":      {adminapi.Selection{Code: code(0)}, []uint64{10, 11, 12}},
	"cause":          {adminapi.Selection{Cause: "NO SUCH ROOM"}, []uint64{6, 7, 8, 9, 13, 14}},
	"part of cause":  {adminapi.Selection{Cause: "request 12"}, []uint64{1, 2, 3, 4, 5}},
	"cause of group": {adminapi.Selection{Cause: "request *"}, []uint64{1, 2, 3, 4, 5}},
	"several":        {adminapi.Selection{Cause: "room", Trigger: "default/a", Code: code(400)}, []uint64{13, 14}},
	"too young":      {adminapi.Selection{OlderThan: "2h"}, nil},
	"old enough":     {adminapi.Selection{OlderThan: "30m", Trigger: "default/b"}, []uint64{6, 7, 8, 9}},
	"limit":          {adminapi.Selection{Trigger: "default/a", Limit: 6}, []uint64{1, 2, 3, 4, 5, 13}},
}

func TestList(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	f.ahead.Store(int64(time.Hour))
	for name, test := range selections {
		t.Run(name, func(t *testing.T) {
			s := test.selection
			s.All, s.Limit = false, 4
			var got []uint64
			for after := uint64(0); ; {
				page, err := f.client.Events(t.Context(), broker, s, after)
				if err != nil {
					t.Fatal(err)
				}
				for _, item := range page.Items {
					got = append(got, item.Sequence)
				}
				if after = page.Next; after == 0 {
					break
				}
			}
			if test.selection.Limit > 0 { // of an operation; a list's limit is that of a page
				got = got[:test.selection.Limit]
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestShow(t *testing.T) {
	f := newFixture(t)
	first := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	f.park(t, "uid-a", 1, stream.Progress{Attempt: 3, Code: 503, Cause: "overloaded", First: first, Destination: "http://subscriber/"})
	got, err := f.client.Event(t.Context(), broker, 1)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.DecodeJSON(got.Event)
	if err != nil || string(e.Data) != `{"n":"uid-a/0/overloaded"}` {
		t.Errorf("event %s, %v", got.Event, err)
	}
	if time.Since(got.Parked) > time.Minute || got.FirstAttempt == nil || !got.FirstAttempt.Equal(first) {
		t.Errorf("parked at %s, first attempt at %v", got.Parked, got.FirstAttempt)
	}
	got.Event, got.Parked, got.FirstAttempt = nil, time.Time{}, nil
	want := adminapi.Detail{Item: adminapi.Item{
		Sequence: 1, Trigger: "default/a", TriggerUID: "uid-a", Attempts: 3, Code: 503, Cause: "overloaded",
		Destination: "http://subscriber/", ID: "uid-a/0/overloaded", Type: "com.example.test", Source: "/test", Size: 26,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := f.client.Event(t.Context(), broker, 2); problem(err).Status != http.StatusNotFound {
		t.Errorf("an event that is not there: %v", err)
	}
}

func problem(err error) *adminapi.Problem {
	var p *adminapi.Problem
	if !errors.As(err, &p) {
		return &adminapi.Problem{}
	}
	return p
}

func TestGroups(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	got, err := f.client.Groups(t.Context(), broker, adminapi.Selection{}, func(adminapi.Line[adminapi.Groups]) {})
	if err != nil || got.Events != 14 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range got.Groups {
		g := &got.Groups[i]
		if g.Oldest.IsZero() || g.Newest.Before(g.Oldest) || g.Bytes == 0 {
			t.Errorf("%+v", g)
		}
		g.Oldest, g.Newest, g.Bytes = time.Time{}, time.Time{}, 0
	}
	want := []adminapi.Group{
		{Trigger: "default/a", TriggerUID: "uid-a", Code: 503, Cause: "overloaded, request *", Count: 5, Last: 5},
		{Trigger: "default/b", TriggerUID: "uid-b", Code: 400, Cause: "no such Room", Count: 4, Last: 9},
		{TriggerUID: "uid-c", Cause: "connection refused", Count: 3, Last: 12},
		{Trigger: "default/a", TriggerUID: "uid-a", Code: 400, Cause: "no such room", Count: 2, Last: 14},
	}
	if diff := cmp.Diff(want, got.Groups); diff != "" {
		t.Error(diff)
	}
}

// A dry run counts exactly what the redrive after it does; events of a deleted Trigger stay.
func TestRedrive(t *testing.T) {
	for name, test := range selections {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.parkSome(t)
			f.ahead.Store(int64(time.Hour))
			want := adminapi.RedriveResult{Selected: uint64(len(test.want))}
			for _, sequence := range test.want {
				switch {
				case sequence >= 10 && sequence <= 12:
					want.NoTrigger++
					want.Missing = []string{"uid-c"}
				case sequence >= 6 && sequence <= 9:
					want.Waiting++
					want.Redriven++
				default:
					want.Redriven++
				}
			}
			if test.selection.Limit > 0 { // a limit is of those that are redriven
				want.Selected = want.NoTrigger + uint64(test.selection.Limit)
			}
			req := adminapi.RedriveRequest{Selection: test.selection}
			req.DryRun, want.DryRun = true, true
			got, err := f.redrive(t, req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("dry run (-want +got):\n%s", diff)
			}
			f.left(t, 14, 0)
			req.DryRun, want.DryRun = false, false
			if got, err = f.redrive(t, req); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("redrive (-want +got):\n%s", diff)
			}
			f.left(t, 14-want.Redriven, want.Redriven)
		})
	}
}

func TestRedriveSequences(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	got, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{Sequences: []uint64{14, 2, 2, 10, 99}}})
	if err != nil {
		t.Fatal(err)
	}
	want := &adminapi.RedriveResult{Selected: 4, Redriven: 2, NoTrigger: 1, Missing: []string{"uid-c"}, Gone: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	f.left(t, 12, 2)
}

// What is redriven comes to the Trigger as a delivery of which nothing was tried, and as its subscriber knows it.
func TestRedriveIsFresh(t *testing.T) {
	f := newFixture(t)
	f.park(t, "uid-a", 1, stream.Progress{Attempt: 3, Code: 503, Cause: "x", First: time.Now()})
	f.park(t, "uid-a", 1, stream.Progress{Attempt: 3, DeadLetter: true, Cause: "y"})
	if _, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{All: true}}); err != nil {
		t.Fatal(err)
	}
	for _, d := range f.retries(t, 2) {
		if diff := cmp.Diff(stream.Progress{}, d.Progress()); diff != "" {
			t.Errorf("progress:\n%s", diff)
		}
		for _, a := range d.Event.Attributes {
			if strings.HasPrefix(a.Name, "knativeerror") {
				t.Errorf("the event still has %s", a.Name)
			}
		}
	}
}

// A crash between the two steps of a redrive is mended by repeating it: everything is stored for delivery once.
func TestRedriveRepeatedAfterCrash(t *testing.T) {
	f := newFixture(t)
	f.park(t, "uid-a", 100, stream.Progress{Attempt: 3})
	crash := errors.New("killed")
	f.faults.deletes = func(sequence uint64) error {
		if sequence > 20 {
			return crash
		}
		return nil
	}
	got, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{All: true}})
	if p := problem(err); p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "still parked") {
		t.Errorf("error %v", err)
	}
	if got.Redriven != 20 || got.Failed == 0 || got.Selected != got.Redriven+got.Failed {
		t.Errorf("%+v", got)
	}
	f.left(t, 80, got.Selected)
	f.faults.deletes = nil
	got, err = f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{All: true}})
	if err != nil || got.Redriven != 80 || got.Selected != 80 {
		t.Errorf("%+v, %v", got, err)
	}
	f.left(t, 0, 100)
	ids := map[string]bool{}
	for _, d := range f.retries(t, 100) {
		ids[d.Event.Value(event.ID)] = true
	}
	if len(ids) != 100 {
		t.Errorf("%d events of 100", len(ids))
	}
}

func TestRedriveStoreFull(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	f.faults.publish = func() error { return stream.ErrFull }
	got, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{Trigger: "default/a"}})
	if p := problem(err); !strings.Contains(p.Hint, "still parked") {
		t.Errorf("error %v", err)
	}
	if got.Redriven != 0 || got.Failed != got.Selected {
		t.Errorf("%+v", got)
	}
	f.left(t, 14, 0)
	f.faults.publish = func() error { return stream.ErrTooLarge }
	got, err = f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{Trigger: "default/a"}})
	if err != nil || got.TooLarge != 7 || got.Redriven != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	f.left(t, 14, 0)
}

// What somebody purges while a redrive runs is not redriven.
func TestRedriveWhilePurged(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	f.faults.gets = func(sequence uint64) {
		if sequence%2 == 0 {
			_ = f.conn.DeleteParked(context.Background(), f.names, sequence)
		}
	}
	got, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{Trigger: "default/a"}})
	if err != nil || got.Selected != 7 || got.Redriven != 4 || got.Gone != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	f.left(t, 7, 4)
}

// A redrive that the process's end interrupts says how far it came.
func TestStop(t *testing.T) {
	f := newFixture(t)
	f.park(t, "uid-a", 50, stream.Progress{Attempt: 3})
	var once atomic.Bool
	stopped := make(chan struct{})
	got, err := f.client.Redrive(t.Context(), broker, adminapi.RedriveRequest{
		Selection: adminapi.Selection{All: true}, Rate: 20,
	}, func(l adminapi.Line[adminapi.RedriveResult]) {
		if l.State == adminapi.Running && once.CompareAndSwap(false, true) {
			go func() {
				f.handler.Stop(t.Context())
				close(stopped)
			}()
		}
	})
	<-stopped
	if p := problem(err); !strings.Contains(p.Detail, "stopping") {
		t.Errorf("error %v", err)
	}
	if got.Redriven == 0 || got.Redriven >= 50 || got.Redriven != got.Selected {
		t.Errorf("%+v", got)
	}
	f.left(t, 50-got.Redriven, got.Redriven)
	if _, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{All: true}}); err == nil {
		t.Error("a stopped handler works on")
	}
}

// A client that goes away ends its redrive.
func TestClientGone(t *testing.T) {
	f := newFixture(t)
	f.park(t, "uid-a", 50, stream.Progress{Attempt: 3})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := f.client.Redrive(ctx, broker, adminapi.RedriveRequest{
		Selection: adminapi.Selection{All: true}, Rate: 20,
	}, func(adminapi.Line[adminapi.RedriveResult]) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	f.handler.Stop(t.Context()) // waits for it
	if parked, retries := f.count(t, f.names.Parked), f.count(t, f.names.Retries); parked == 0 || parked+retries != 50 {
		t.Errorf("%d parked and %d waiting for delivery of 50", parked, retries)
	}
}

func (f *fixture) retries(t *testing.T, n int) []*stream.Delivery {
	t.Helper()
	deliveries := make(chan *stream.Delivery, n)
	c, err := f.conn.Consume(t.Context(), stream.ConsumeOptions{Stream: f.names.Retries}, func(d *stream.Delivery) { deliveries <- d })
	if err != nil {
		t.Fatal(err)
	}
	var all []*stream.Delivery
	for range n {
		select {
		case d := <-deliveries:
			d.Ack()
			all = append(all, d)
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d deliveries", len(all), n)
		}
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPurge(t *testing.T) {
	for name, test := range selections {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.parkSome(t)
			f.ahead.Store(int64(time.Hour))
			n := uint64(len(test.want))
			s := test.selection
			s.DryRun = true
			got, err := f.purge(t, s)
			if diff := cmp.Diff(&adminapi.PurgeResult{DryRun: true, Selected: n, Purged: n}, got); err != nil || diff != "" {
				t.Errorf("dry run: %v\n%s", err, diff)
			}
			f.left(t, 14, 0)
			got, err = f.purge(t, test.selection)
			if diff := cmp.Diff(&adminapi.PurgeResult{Selected: n, Purged: n}, got); err != nil || diff != "" {
				t.Errorf("purge: %v\n%s", err, diff)
			}
			f.left(t, 14-n, 0)
			page, err := f.client.Events(t.Context(), broker, adminapi.Selection{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range page.Items {
				if slices.Contains(test.want, item.Sequence) {
					t.Errorf("%d is still there", item.Sequence)
				}
			}
		})
	}
}

func TestPurgeSequences(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	got, err := f.purge(t, adminapi.Selection{Sequences: []uint64{14, 2, 99}})
	if diff := cmp.Diff(&adminapi.PurgeResult{Selected: 3, Purged: 2, Gone: 1}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	f.left(t, 12, 0)
	f.faults.deletes = func(uint64) error { return stream.ErrUnavailable }
	got, err = f.purge(t, adminapi.Selection{Cause: "o"})
	if err == nil || got.Failed != got.Selected || got.Purged != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	f.left(t, 12, 0)
}

func TestEmpty(t *testing.T) {
	f := newFixture(t)
	if got, err := f.redrive(t, adminapi.RedriveRequest{Selection: adminapi.Selection{All: true}}); err != nil || got.Selected != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := f.purge(t, adminapi.Selection{All: true}); err != nil || got.Selected != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if page, err := f.client.Events(t.Context(), broker, adminapi.Selection{}, 0); err != nil || page.Items == nil || len(page.Items) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
}

// Mistakes are refused before anything is done.
func TestRefusals(t *testing.T) {
	f := newFixture(t)
	f.parkSome(t)
	const parked = "/api/v1/brokers/default/live/parked"
	good := map[string]string{"Millrace-Admin": "1", "Content-Type": "application/json"}
	with := func(name, value string) map[string]string {
		h := map[string]string{"Millrace-Admin": "1", "Content-Type": "application/json"}
		h[name] = value
		return h
	}
	for name, test := range map[string]struct {
		method, path, body string
		headers            map[string]string
		status             int
		detail             string
	}{
		"no header":            {"POST", parked + "/redrive", `{"all":true}`, with("Millrace-Admin", ""), 403, "Millrace-Admin"},
		"form":                 {"POST", parked + "/redrive", `all=true`, with("Content-Type", "text/plain"), 415, "JSON"},
		"no content type":      {"DELETE", parked, `{"all":true}`, with("Content-Type", ""), 415, "JSON"},
		"web page":             {"DELETE", parked, `{"all":true}`, with("Origin", "http://localhost:1"), 403, "web pages"},
		"foreign name":         {"GET", parked, ``, map[string]string{"Host": "evil.example:8081"}, 403, "evil.example"},
		"nothing selected":     {"POST", parked + "/redrive", `{}`, good, 400, "which events"},
		"only a limit":         {"DELETE", parked, `{"limit":3}`, good, 400, "which events"},
		"all and a condition":  {"DELETE", parked, `{"all":true,"code":500}`, good, 400, "condition"},
		"misspelled condition": {"DELETE", parked, `{"all":true,"triger":"default/a"}`, good, 400, "triger"},
		"two objects":          {"DELETE", parked, `{"all":true}{"code":500}`, good, 400, "follows"},
		"no body":              {"DELETE", parked, ``, good, 400, "EOF"},
		"huge body":            {"DELETE", parked, `{"cause":"` + strings.Repeat("x", 2<<20) + `"}`, good, 413, "1048576"},
		"bad age":              {"DELETE", parked, `{"olderThan":"old"}`, good, 400, "7d"},
		"negative limit":       {"DELETE", parked, `{"all":true,"limit":-1}`, good, 400, "negative"},
		"negative rate":        {"POST", parked + "/redrive", `{"all":true,"rate":-1}`, good, 400, "negative"},
		"sequence 0":           {"DELETE", parked, `{"sequences":[0]}`, good, 400, "sequence 0"},
		"unknown trigger":      {"DELETE", parked, `{"trigger":"default/x"}`, good, 404, "default/x"},
		"wildcard trigger":     {"DELETE", parked, `{"trigger":"*"}`, good, 400, "UID"},
		"unknown broker":       {"GET", "/api/v1/brokers/default/x/parked", ``, nil, 404, "default/x"},
		"unknown parameter":    {"GET", parked + "?triger=default/a", ``, nil, 400, "triger"},
		"bad parameter":        {"GET", parked + "?code=x", ``, nil, 400, "code"},
		"bad sequence":         {"GET", parked + "/x", ``, nil, 400, "sequence"},
		"unknown path":         {"GET", "/api/v1/x", ``, nil, 404, "/api/v1/x"},
		"unknown method":       {"PUT", parked, `{}`, good, 404, "PUT"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), test.method, f.client.URL+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range test.headers {
				if k == "Host" {
					req.Host = v
				} else if v != "" {
					req.Header.Set(k, v)
				}
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var text strings.Builder
			if err := resp.Write(&text); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != test.status ||
				!strings.Contains(text.String(), test.detail) {
				t.Errorf("%s", text.String())
			}
		})
	}
	f.left(t, 14, 0)
}

// Names under which this machine can be reached without a foreign DNS zone's help are fine.
func TestHosts(t *testing.T) {
	f := newFixture(t)
	for host, want := range map[string]int{
		"127.0.0.1:8081": 200, "localhost:8081": 200, "LOCALHOST": 200, "localhost.": 200, "[::1]:8081": 200, "millrace.localhost": 200,
		"localhost.example": 403, "127.0.0.1.example:80": 403, "filter.millrace.svc": 403,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.client.URL+"/api/v1/brokers", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("host %s: status %d, want %d", host, resp.StatusCode, want)
		}
	}
}

// An answer without its last line is an error, whatever it said before.
func TestCutOff(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `{"state":"running","examined":1,"total":2,"result":{"redriven":1}}`)
	}))
	t.Cleanup(s.Close)
	c := &adminapi.Client{URL: s.URL}
	got, err := c.Redrive(t.Context(), broker, adminapi.RedriveRequest{}, func(adminapi.Line[adminapi.RedriveResult]) {})
	if !errors.Is(err, adminapi.ErrCutOff) || got.Redriven != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// The URL of something else is told as such.
func TestNotTheAdminAPI(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	if _, err := (&adminapi.Client{URL: s.URL}).Brokers(t.Context()); !strings.Contains(err.Error(), "admin URL") {
		t.Errorf("error %v", err)
	}
}
