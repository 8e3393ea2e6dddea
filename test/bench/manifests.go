package main

import (
	"bytes"
	"fmt"
)

const (
	eventType = "com.example.live.gift.sent"
	dataBytes = 1024
	// amount is that of every event.
	amount = 707
)

// payload is the data of every event: JSON of dataBytes bytes.
var payload = makePayload()

func makePayload() []byte {
	start := fmt.Sprintf(`{"user":{"id":"u-48151623","name":"mia","level":12,"badges":["fan","early","gold"]},"room":{"id":42,"host":"lee"},`+
		`"gift":{"name":"rocket","count":3,"combo":true},"amount":%d,"currency":"coin","at":1767323045.123,"text":"`, amount)
	end := `"}`
	return []byte(start + string(bytes.Repeat([]byte("x"), dataBytes-len(start)-len(end))) + end)
}

func brokerManifest(name, annotations string) string {
	return fmt.Sprintf("apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: %s, annotations: {%s}}\n", name, annotations)
}

// triggerManifest is a Trigger of the Broker with the given subscriber and filters, a list in YAML's flow style.
func triggerManifest(broker, name, subscriber, filters string) string {
	return fmt.Sprintf("apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: %s}\n"+
		"spec:\n  broker: %s\n  subscriber: {uri: %q}\n  filters: [%s]\n", name, broker, subscriber, filters)
}

// exactType is the filter for events of the type.
func exactType(typ string) string { return fmt.Sprintf("{exact: {type: %s}}", typ) }
