package e2esources

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/test/harness"
)

const byKeyManifest = `
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: by-key}
spec:
  bootstrapServers: ["%s"]
  topics: [ledger]
  initialOffset: earliest
  ordering: key
  sink:
    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}
`

// TestReplicas has one to four processes share the partitions, which join, leave and are killed while records come: each of two sources
// stores every record once, one in the order of partitions and the other in that of keys.
func TestReplicas(t *testing.T) {
	t.Parallel()
	total := records() / 4 // each is stored twice
	k := StartKafka(t)
	k.Create(t, "ledger", partitions)
	manifest := filepath.Join(t.TempDir(), "replicas.yaml")
	harness.WriteFile(t, manifest, fmt.Sprintf(ledgerManifest+byKeyManifest, k.Plain, k.Plain))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	first := c.StartSource(t)
	harness.WaitReady(t, first.Admin+"/readyz")
	p := startPulse(t, c)

	var written atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() { write(t, k.Client(t), total, &written) })
	running := []*harness.Server{first}
	join := func() { running = append(running, c.StartSource(t)) }
	// The one that has been there for longest goes.
	leave := func() { running[0].Signal(t, os.Interrupt); running = running[1:] }
	kill := func() { running[0].Kill(); running = running[1:] }
	for _, step := range []struct {
		what string
		do   []func()
	}{
		{"one joins", []func(){join}},
		{"two join", []func(){join, join}},
		{"one leaves", []func(){leave}},
		{"one is killed, one joins", []func(){kill, join}},
		{"one leaves, two join", []func(){leave, join, join}},
		{"one is killed", []func(){kill}},
		{"one leaves", []func(){leave}},
		{"one joins, one leaves", []func(){join, leave}},
	} {
		time.Sleep(writeFor / 10)
		for _, do := range step.do {
			do()
		}
		p.mark(step.what)
	}
	writing.Wait()

	byKey := "/apis/v1/namespaces/default/kafkasources/by-key#ledger"
	verify(t, c, 2*int(written.Load()), func(e *event.Event) string {
		if e.Value(event.Source) == byKey {
			return e.Value("key")
		}
		return e.Value("knativekafkapartition")
	})
	p.mark("all records are read")
}
