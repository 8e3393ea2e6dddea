package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// ErrCutOff says that the answer of an operation broke off: the connection was lost or the process at the other end died.
// What the operation had done by then is done; what it had not is still parked.
var ErrCutOff = errors.New("the answer broke off before the end; what was done is done, the rest is still parked")

// ErrUnreachable says that there was no answer at all.
var ErrUnreachable = errors.New("reach the admin API")

// Client speaks to the API. Its methods return a [*Problem] if the API refuses a request.
type Client struct {
	// URL is that of the admin listener, such as http://127.0.0.1:8081.
	URL string
	// HTTP sends the requests; nil means http.DefaultClient. It must not limit the time of a whole request.
	HTTP *http.Client
	// Token, if set, returns the bearer token to send with a request.
	Token func(ctx context.Context) (string, error)
	// Namespace is the one that is asked about where no Broker is named; empty for all.
	Namespace string
}

// Brokers returns the Brokers and how many events are parked for each.
func (c *Client) Brokers(ctx context.Context) ([]BrokerInfo, error) {
	var answer struct {
		Brokers []BrokerInfo `json:"brokers"`
	}
	query := url.Values{}
	setUnlessEmpty(query, "namespace", c.Namespace)
	err := c.get(ctx, "brokers", query, &answer)
	return answer.Brokers, err
}

// Events returns a page of the events parked for a Broker, given as namespace/name, that are selected; those after the
// given sequence only. s.Limit is the size of the page.
func (c *Client) Events(ctx context.Context, broker string, s Selection, after uint64) (Page, error) {
	query := parameters(s)
	if after > 0 {
		query.Set("after", strconv.FormatUint(after, 10))
	}
	var page Page
	err := c.get(ctx, path(broker), query, &page)
	return page, err
}

// Event returns one parked event.
func (c *Client) Event(ctx context.Context, broker string, sequence uint64) (Detail, error) {
	var d Detail
	err := c.get(ctx, path(broker, strconv.FormatUint(sequence, 10)), nil, &d)
	return d, err
}

// Groups counts the selected events by Trigger and cause. each is called for each line of the answer.
func (c *Client) Groups(ctx context.Context, broker string, s Selection, each func(Line[Groups])) (*Groups, error) {
	return operate(ctx, c, operation{method: http.MethodGet, path: path(broker, "groups"), query: parameters(s)}, each)
}

// Redrive gives events back to their Triggers. each is called for each line of the answer. The result is not nil if the
// operation began, even if it ended with an error.
func (c *Client) Redrive(ctx context.Context, broker string, req RedriveRequest, each func(Line[RedriveResult])) (*RedriveResult, error) {
	return operate(ctx, c, operation{method: http.MethodPost, path: path(broker, "redrive"), body: req}, each)
}

// Purge removes events. each is called for each line of the answer. The result is not nil if the operation began, even
// if it ended with an error.
func (c *Client) Purge(ctx context.Context, broker string, req PurgeRequest, each func(Line[PurgeResult])) (*PurgeResult, error) {
	return operate(ctx, c, operation{method: http.MethodDelete, path: path(broker), body: req}, each)
}

// Stats returns counts at this moment.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	query := url.Values{}
	setUnlessEmpty(query, "namespace", c.Namespace)
	var s Stats
	err := c.get(ctx, "stats", query, &s)
	return s, err
}

// Trace returns what became of the events with the given id. broker, as namespace/name, and source choose among several;
// both may be empty.
func (c *Client) Trace(ctx context.Context, id, broker, source string) (Trace, error) {
	query := url.Values{"id": {id}}
	c.narrow(query, broker)
	setUnlessEmpty(query, "broker", broker)
	setUnlessEmpty(query, "source", source)
	var t Trace
	err := c.get(ctx, "journal/events", query, &t)
	return t, err
}

// Tail calls each for the records of the journal that come from now on, until ctx ends, whose cause it then returns. It calls
// begun once it follows.
func (c *Client) Tail(ctx context.Context, f TailFilter, begun func(), each func(JournalLine) error) error {
	query := url.Values{}
	if f.Namespace == "" {
		c.narrow(query, f.Broker)
	}
	for name, value := range map[string]string{
		"namespace": f.Namespace, "broker": f.Broker, "type": f.Type, "source": f.Source, "trigger": f.Trigger, "cel": f.CEL,
	} {
		setUnlessEmpty(query, name, value)
	}
	if f.Failures {
		query.Set("failures", "true")
	}
	body, err := c.do(ctx, operation{method: http.MethodGet, path: "journal/tail", query: query})
	if err != nil {
		return err
	}
	defer body.Close()
	begun()
	for dec := json.NewDecoder(body); ; {
		var line struct {
			JournalLine
			Problem *Problem `json:"problem"`
		}
		switch err := dec.Decode(&line); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("%w; run it again", errTailEnded)
		case line.Problem != nil:
			return line.Problem
		}
		if err := each(line.JournalLine); err != nil {
			return err
		}
	}
}

var errTailEnded = errors.New("the process at the other end stopped or was lost")

// narrow has a request ask about the client's namespace, unless a Broker says which.
func (c *Client) narrow(query url.Values, broker string) {
	if broker == "" {
		setUnlessEmpty(query, "namespace", c.Namespace)
	}
}

func setUnlessEmpty(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

func path(broker string, more ...string) string {
	namespace, name, _ := strings.Cut(broker, "/")
	parts := append([]string{"brokers", url.PathEscape(namespace), url.PathEscape(name), "parked"}, more...)
	return strings.Join(parts, "/")
}

// parameters are the selection as a query; what a query cannot say is for mutating requests only.
func parameters(s Selection) url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("trigger", s.Trigger)
	set("cause", s.Cause)
	set("olderThan", s.OlderThan)
	if s.Code != nil {
		set("code", strconv.Itoa(*s.Code))
	}
	if s.Limit > 0 {
		set("limit", strconv.Itoa(s.Limit))
	}
	return v
}

// operation is a request to the API.
type operation struct {
	method, path string
	query        url.Values
	body         any
}

func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	body, err := c.do(ctx, operation{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of the admin API: %w", err)
	}
	return nil
}

// do sends a request and returns the body of a good answer.
func (c *Client) do(ctx context.Context, o operation) (io.ReadCloser, error) {
	var body bytes.Buffer
	if o.body != nil {
		if err := json.NewEncoder(&body).Encode(o.body); err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
	}
	target := strings.TrimRight(c.URL, "/") + Prefix + o.path
	if len(o.query) > 0 {
		target += "?" + o.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, o.method, target, &body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	if o.body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(Header, "1")
	}
	if c.Token != nil {
		token, err := c.Token(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads why a request was refused.
func refusal(resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var p Problem
	if media == "application/problem+json" && json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&p) == nil {
		return &p
	}
	return problemf(resp.StatusCode, "the answer was %s", resp.Status).
		hint("is this the admin URL of a filter or of millrace dev? Others do not serve this")
}

// operate reads the lines of an operation.
func operate[T any](ctx context.Context, c *Client, o operation, each func(Line[T])) (*T, error) {
	body, err := c.do(ctx, o)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	last := new(T)
	for dec := json.NewDecoder(body); ; {
		var line Line[T]
		if err := dec.Decode(&line); err != nil {
			if ctx.Err() != nil {
				return last, context.Cause(ctx)
			}
			return last, ErrCutOff
		}
		if line.Result != nil {
			last = line.Result
		}
		each(line)
		switch {
		case line.Problem != nil:
			return last, line.Problem
		case line.State == Done:
			return last, nil
		}
	}
}
