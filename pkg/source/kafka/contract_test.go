package kafka_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/kafka"
	"millrace.dev/pkg/source/sourcetest"
)

// topic is a topic with one partition.
type topic struct{ *rig }

func (s topic) New(outlet *source.Outlet) source.Source {
	o := s.options(nil)
	o.Outlet = outlet
	return kafka.New(o)
}

func (s topic) Write(t *testing.T, data ...string) {
	t.Helper()
	for _, d := range data {
		if err := s.client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte(d)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.System {
		t.Helper()
		return topic{start(t, kfake.SeedTopics(1, "orders"))}
	})
}
