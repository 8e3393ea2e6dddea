package access

import (
	"sync"
	"time"
)

// memory keeps answers for a while, and no more than some.
type memory[K comparable, V any] struct {
	max int
	now func() time.Time

	mu      sync.Mutex
	answers map[K]answer[V]
}

type answer[V any] struct {
	value V
	until time.Time
}

func newMemory[K comparable, V any](size int) *memory[K, V] {
	return &memory[K, V]{max: size, now: time.Now, answers: map[K]answer[V]{}}
}

func (m *memory[K, V]) get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.answers[key]
	if !ok || !m.now().Before(a.until) {
		var none V
		return none, false
	}
	return a.value, true
}

// put makes room by what is out of date, or else by anything.
func (m *memory[K, V]) put(key K, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if len(m.answers) >= m.max {
		for k, a := range m.answers {
			if !now.Before(a.until) {
				delete(m.answers, k)
			}
		}
	}
	for k := range m.answers {
		if len(m.answers) < m.max {
			break
		}
		delete(m.answers, k)
	}
	m.answers[key] = answer[V]{value, now.Add(remember)}
}
