package broker_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// arrivals keeps what a Recorder is told by the ingress.
type arrivals struct {
	observe.Recorder // nothing else is called

	mu  sync.Mutex
	all []observe.Arrival
}

func (a *arrivals) Arrived(one observe.Arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, one)
}

func TestRequestsAreCountedByBroker(t *testing.T) {
	seen := &arrivals{}
	h := newHandler(storeFunc(func(context.Context) error { return nil }), broker.Options{Recorder: seen})
	ids := []string{"ce-id", "1", "ce-source", "/s", "ce-type", "t", "ce-specversion", "1.0"}
	serve(h, post("/shop/orders", "x", ids...))
	serve(h, post("/shop/none", "x", ids...))
	serve(h, post("/shop/orders", "x", "ce-type", ""))

	byBroker := map[string]broker.ByBroker{}
	for _, s := range h.ByBroker() {
		byBroker[s.Broker] = s
	}
	orders := byBroker["shop/orders"]
	if orders.Events != 1 || len(orders.Requests) != 2 || orders.Requests[0].Status != http.StatusAccepted || len(orders.Publishes) != 1 {
		t.Errorf("orders: %+v", orders)
	}
	if none := byBroker[""]; len(none.Requests) != 1 || none.Requests[0].Status != http.StatusNotFound {
		t.Errorf("no broker: %+v", none)
	}
	if len(seen.all) != 3 || seen.all[0].Event.Value(event.ID) != "1" || seen.all[0].Refused != "" ||
		seen.all[1].Broker != nil || seen.all[1].Refused != broker.UnknownBroker.String() || seen.all[2].Refused != broker.InvalidEvent.String() {
		t.Errorf("told of %+v", seen.all)
	}

	// An event that could be read is told of though it is refused, for its id.
	serve(h, post("/shop/orders", "x", "ce-id", "looped", "ce-source", "/s", "ce-type", "t", "ce-specversion", "1.0", "ce-knativebrokerttl", "0"))
	if last := seen.all[len(seen.all)-1]; last.Refused == "" || last.Event == nil || last.Event.Value(event.ID) != "looped" {
		t.Errorf("told of %+v", last)
	}

	// A Broker that stays goes on counting, one that is gone leaves nothing.
	h.SetTable(broker.NewTable([]*broker.Broker{{Names: stream.NewNames("shop", "orders", "uid-1")}, {Names: stream.NewNames("shop", "new", "u")}}))
	for _, s := range h.ByBroker() {
		if s.Broker == "shop/orders" && s.Events != 1 || s.Broker == "shop/new" && s.Events != 0 {
			t.Errorf("after a reload: %+v", s)
		}
	}
	h.SetTable(broker.NewTable(nil))
	if got := h.ByBroker(); len(got) != 1 || got[0].Broker != "" {
		t.Errorf("without brokers: %+v", got)
	}
}
