package access

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"
)

func TestAudiences(t *testing.T) {
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	for text, want := range map[string][]string{
		token(`{"aud":["a","millrace.dev"]}`): {"a", "millrace.dev"},
		token(`{"aud":"millrace.dev"}`):       {"millrace.dev"},
		token(`{"aud":5}`):                    nil,
		token(`{`):                            nil,
		token(`{}`):                           nil,
		"a.%.c":                               nil,
		"opaque":                              nil,
	} {
		if got := audiences(text); !slices.Equal(got, want) {
			t.Errorf("%s is for %q, want %q", text, got, want)
		}
	}
}

func TestMemoryForgets(t *testing.T) {
	now := time.Now()
	m := newMemory[int, string](3)
	m.now = func() time.Time { return now }
	m.put(1, "one")
	if got, ok := m.get(1); !ok || got != "one" {
		t.Errorf("got %q, %v", got, ok)
	}
	now = now.Add(remember)
	if got, ok := m.get(1); ok {
		t.Errorf("%q is remembered after %s", got, remember)
	}
	m.put(2, "two")
	m.put(3, "three")
	m.put(4, "four") // in place of what is out of date
	for key := 2; key <= 4; key++ {
		if _, ok := m.get(key); !ok {
			t.Errorf("%d was dropped before what is out of date", key)
		}
	}
	for key := range 100 {
		m.put(key, "more")
	}
	if len(m.answers) > m.max {
		t.Errorf("%d answers are kept, want %d at most", len(m.answers), m.max)
	}
}
