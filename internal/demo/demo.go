// Package demo holds the subscribers of the live-stream example: the services of a company that streams live rooms, made
// of nothing but what one needs to see events arrive.
package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"millrace.dev/internal/cli/display"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// The types of events that the moderation service knows.
const (
	typeCommentPosted  = "com.example.live.comment.posted"
	typeCommentFlagged = "com.example.live.comment.flagged"
)

// BrokerPath is the path of the example's Broker below the address of the ingress.
const BrokerPath = "/default/live"

// Paths returns the paths at which [Subscribers] takes events, in alphabetical order.
func Paths() []string {
	return []string{"/analytics", "/big-spender", "/gift-animation", "/moderation", "/review"}
}

// Subscribers returns a handler that plays the subscribers of examples/live-stream, each at its path: it writes a line
// to out for each event, labeled with the subscriber's name and colored if out is a terminal. The moderation service
// answers a comment that holds a link with an event of type com.example.live.comment.flagged.
func Subscribers(out io.Writer) http.Handler {
	mux := http.NewServeMux()
	shared, style := display.Shared(out), terminal.StyleFor(out)
	for _, path := range Paths() {
		opts := display.Options{Out: shared, Style: style, Name: path[1:], Format: display.Compact}
		if path == "/moderation" {
			opts.Reply = moderate
		}
		mux.Handle(path, display.New(opts))
	}
	mux.HandleFunc("/", notFound)
	return mux
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "nobody subscribes here; there are "+strings.Join(Paths(), ", "), http.StatusNotFound)
}

// comment is the data of a posted comment, and with a reason that of a flagged one.
type comment struct {
	User   string `json:"user"`
	Text   string `json:"text"`
	Reason string `json:"reason,omitempty"`
}

// moderate returns the event that flags a comment with a link, or nil. Its id follows from that of the comment, so that
// a comment that is delivered twice is not flagged as if it were two.
func moderate(e *event.Event) *event.Event {
	var c comment
	if e.Value(event.Type) != typeCommentPosted || json.Unmarshal(e.Data, &c) != nil || !hasLink(c.Text) {
		return nil
	}
	c.Reason = "contains a link"
	data, err := json.Marshal(c)
	if err != nil {
		return nil // Strings can always be marshaled.
	}
	flagged := &event.Event{Data: data}
	for _, a := range [][2]string{
		{event.SpecVersion, "1.0"},
		{event.ID, fmt.Sprintf("%s-flagged", e.Value(event.ID))},
		{event.Source, "/moderation"},
		{event.Type, typeCommentFlagged},
		{event.Subject, e.Value(event.Subject)},
		{event.DataContentType, "application/json"},
	} {
		if a[1] != "" {
			flagged.Set(a[0], a[1], event.String)
		}
	}
	return flagged
}

func hasLink(text string) bool {
	return slices.ContainsFunc([]string{"http://", "https://", "www."}, func(mark string) bool {
		return strings.Contains(strings.ToLower(text), mark)
	})
}
