package adminapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/internal/adminapi"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/stream"
)

// roles gives users, whose names are their tokens, the right to all that it lists.
type roles struct {
	mu    sync.Mutex
	may   map[string][]string // actions by user
	asked []string
	err   error
}

func (r *roles) Allow(_ context.Context, token string, do adminapi.Action) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, do.String())
	if r.err != nil {
		return "", r.err
	}
	actions, ok := r.may[token]
	if !ok {
		return "", adminapi.ErrUnauthenticated
	}
	for _, a := range actions {
		if a == do.String() {
			return token, nil
		}
	}
	return "", &adminapi.Denied{User: token, Action: do}
}

func (r *roles) set(user string, actions ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.may[user] = actions
}

// lines is a journal of nothing that can be followed.
type lines struct{ journal.Store }

func (lines) FollowJournal(ctx context.Context, _ func([]byte)) error {
	<-ctx.Done()
	return nil
}

// guarded is the fixture's API behind an Access, with Brokers in the namespaces default and other.
func (f *fixture) guarded(t *testing.T, o adminapi.Options) (*httptest.Server, *adminapi.Handler) {
	t.Helper()
	other := stream.NewNames("other", "secret", "fedcba9876543210")
	if err := f.conn.Ensure(t.Context(), other, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	catalog := adminapi.Catalog{
		broker:         {Names: f.names, Triggers: map[string]adminapi.Trigger{"uid-a": {Name: "default/a", Ready: true}}},
		"other/secret": {Names: other},
	}
	o.Reader, o.Remover, o.Redriver = f.faults, f.faults, f.faults
	o.Catalog = func() adminapi.Catalog { return catalog }
	o.Counts = func() []adminapi.TriggerCounts {
		return []adminapi.TriggerCounts{{Broker: broker, Trigger: "default/a"}, {Broker: "other/secret", Trigger: "other/hidden"}}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := adminapi.New(o)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, h
}

// reply is the answer to a request.
type reply struct {
	status    int
	challenge string // WWW-Authenticate
	text      string
}

// ask makes a request with a token.
func ask(t *testing.T, method, url, token, body string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(adminapi.Header, "1")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header.Get("WWW-Authenticate"), string(text)}
}

// TestEachEndpointAsks goes through all requests: whoever has the one right is served, and with every other one is not.
func TestEachEndpointAsks(t *testing.T) {
	f := newFixture(t)
	f.park(t, "uid-a", 1, stream.Progress{Attempt: 1})
	access := &roles{may: map[string][]string{}}
	s, _ := f.guarded(t, adminapi.Options{Guard: adminapi.Guard{Access: access}})
	const parked = "brokers/default/live/parked"
	type request struct{ method, path, right string }
	requests := []request{
		{"GET", "brokers", "list parkedevents.millrace.dev in all namespaces"},
		{"GET", "brokers?namespace=default", "list parkedevents.millrace.dev in namespace default"},
		{"GET", parked, "list parkedevents.millrace.dev in namespace default"},
		{"GET", parked + "/groups", "list parkedevents.millrace.dev in namespace default"},
		{"GET", parked + "/1", "get parkedevents.millrace.dev/data in namespace default"},
		{"POST", parked + "/redrive", "create parkedevents.millrace.dev/redrive in namespace default"},
		{"DELETE", parked, "deletecollection parkedevents.millrace.dev in namespace default"},
		{"PUT", "triggers/default/a/paused", "patch triggers.eventing.knative.dev in namespace default"},
		{"GET", "stats", "get statistics.millrace.dev in all namespaces"},
		{"GET", "stats?namespace=other", "get statistics.millrace.dev in namespace other"},
		{"GET", "journal/events?id=1", "get journal.millrace.dev in all namespaces"},
		{"GET", "journal/events?id=1&namespace=default", "get journal.millrace.dev in namespace default"},
		{"GET", "journal/events?id=1&broker=default/live", "get journal.millrace.dev in namespace default"},
		{"GET", "journal/tail", "watch journal.millrace.dev in all namespaces"},
		{"GET", "journal/tail?broker=default/live", "watch journal.millrace.dev in namespace default"},
	}
	var all []string
	for _, r := range requests {
		all = append(all, r.right)
	}
	for _, r := range requests {
		url := s.URL + adminapi.Prefix + r.path
		for _, token := range []string{"", "Bearer nobody", "Basic admin", "admin"} {
			access.set("admin", all...)
			got := ask(t, r.method, url, token, "{}")
			if got.status != http.StatusUnauthorized || got.challenge != "Bearer" {
				t.Errorf("%s %s with Authorization %q: %d %s", r.method, r.path, token, got.status, got.text)
			}
		}
		var others []string
		for _, right := range all {
			if right != r.right {
				others = append(others, right)
			}
		}
		access.set("admin", others...)
		if got := ask(t, r.method, url, "Bearer admin", "{}"); got.status != http.StatusForbidden || !strings.Contains(got.text, r.right) {
			t.Errorf("%s %s without the right: %d %s", r.method, r.path, got.status, got.text)
		}
		access.set("admin", r.right)
		switch got := ask(t, r.method, url, "bearer admin", "{}"); got.status {
		case http.StatusUnauthorized, http.StatusForbidden:
			t.Errorf("%s %s with the right: %d %s", r.method, r.path, got.status, got.text)
		}
	}
}

// TestNamespacesAreKeptApart has somebody who may see one namespace ask in every way for what is in another.
func TestNamespacesAreKeptApart(t *testing.T) {
	f := newFixture(t)
	access := &roles{may: map[string][]string{"dev": {
		"list parkedevents.millrace.dev in namespace default", "get statistics.millrace.dev in namespace default",
	}}}
	s, _ := f.guarded(t, adminapi.Options{Guard: adminapi.Guard{Access: access}})
	for path, want := range map[string]int{
		"brokers?namespace=default":                  http.StatusOK,
		"stats?namespace=default":                    http.StatusOK,
		"brokers/default/nothing/parked":             http.StatusNotFound,
		"brokers":                                    http.StatusForbidden,
		"stats":                                      http.StatusForbidden,
		"brokers/other/secret/parked":                http.StatusForbidden,
		"brokers/other/secret/parked?namespace=x":    http.StatusForbidden,
		"stats?broker=other/secret":                  http.StatusForbidden,
		"stats?namespace=default&broker=other/x":     http.StatusBadRequest,
		"brokers?namespace=default&namespace=other":  http.StatusBadRequest,
		"brokers?broker=default":                     http.StatusBadRequest,
		"brokers/default%2F..%2Fother/secret/parked": http.StatusForbidden,
	} {
		got := ask(t, http.MethodGet, s.URL+adminapi.Prefix+path, "Bearer dev", "")
		if got.status != want {
			t.Errorf("%s: status %d, want %d: %s", path, got.status, want, got.text)
		}
		if strings.Contains(got.text, "secret") && !strings.Contains(path, "secret") || strings.Contains(got.text, "hidden") {
			t.Errorf("%s tells of another namespace: %s", path, got.text)
		}
	}
}

// TestUnmappedEndpointsAreDenied has a part of the API that nobody gave a right.
func TestUnmappedEndpointsAreDenied(t *testing.T) {
	f := newFixture(t)
	access := &roles{may: map[string][]string{"admin": nil}}
	s, h := f.guarded(t, adminapi.Options{Guard: adminapi.Guard{Access: access}})
	h.HandleUnguarded("GET "+adminapi.Prefix+"new", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })
	if got := ask(t, http.MethodGet, s.URL+adminapi.Prefix+"new", "Bearer admin", ""); got.status != http.StatusForbidden {
		t.Errorf("status %d: %s", got.status, got.text)
	}
	if got := ask(t, http.MethodGet, s.URL+adminapi.Prefix+"nothing", "", ""); got.status != http.StatusNotFound {
		t.Errorf("status %d for what is not there", got.status)
	}
	open, h := f.guarded(t, adminapi.Options{})
	h.HandleUnguarded("GET "+adminapi.Prefix+"new", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") })
	if got := ask(t, http.MethodGet, open.URL+adminapi.Prefix+"new", "", ""); got.text != "served" {
		t.Errorf("without an Access: status %d: %s", got.status, got.text)
	}
}

func TestDoubtIsNoPermission(t *testing.T) {
	f := newFixture(t)
	s, _ := f.guarded(t, adminapi.Options{Guard: adminapi.Guard{Access: &roles{err: errors.New("the API server is away")}}})
	got := ask(t, http.MethodGet, s.URL+adminapi.Prefix+"brokers", "Bearer admin", "")
	if got.status != http.StatusServiceUnavailable || !strings.Contains(got.text, "the API server is away") {
		t.Errorf("status %d: %s", got.status, got.text)
	}
}

// TestARightThatIsTakenAwayEndsTheRequest follows the journal until the right to is gone.
func TestARightThatIsTakenAwayEndsTheRequest(t *testing.T) {
	f := newFixture(t)
	const right = "watch journal.millrace.dev in namespace default"
	access := &roles{may: map[string][]string{"dev": {right}}}
	s, _ := f.guarded(t, adminapi.Options{Guard: adminapi.Guard{Access: access, Recheck: time.Millisecond}, Journal: lines{}})
	c := &adminapi.Client{URL: s.URL, Token: func(context.Context) (string, error) { return "dev", nil }}
	err := c.Tail(t.Context(), adminapi.TailFilter{Namespace: "default"}, func() { access.set("dev") }, nil)
	var p *adminapi.Problem
	if !errors.As(err, &p) || p.Status != http.StatusForbidden || !strings.Contains(p.Detail, right) {
		t.Errorf("the journal ended with %v", err)
	}
}

// TestWhoChangesSomethingIsLogged looks for the user in the records of a redrive and a purge.
func TestWhoChangesSomethingIsLogged(t *testing.T) {
	f := newFixture(t)
	f.park(t, "uid-a", 2, stream.Progress{Attempt: 1})
	access := &roles{may: map[string][]string{"ops": {
		"create parkedevents.millrace.dev/redrive in namespace default", "deletecollection parkedevents.millrace.dev in namespace default",
	}}}
	var log bytes.Buffer
	s, h := f.guarded(t, adminapi.Options{Guard: adminapi.Guard{Access: access}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	url := s.URL + adminapi.Prefix + "brokers/default/live/parked"
	ask(t, http.MethodPost, url+"/redrive", "Bearer ops", `{"limit":1,"all":true}`)
	ask(t, http.MethodDelete, url, "Bearer ops", `{"all":true}`)
	h.Stop(t.Context())
	if n := strings.Count(log.String(), "user=ops"); n != 2 {
		t.Errorf("%d records name the user:\n%s", n, log.String())
	}
	if diff := cmp.Diff([]string{
		"create parkedevents.millrace.dev/redrive in namespace default", "deletecollection parkedevents.millrace.dev in namespace default",
	}, access.asked); diff != "" {
		t.Error(diff)
	}
}
