package terminal

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestWantsColor(t *testing.T) {
	for _, test := range []struct {
		interactive bool
		env         map[string]string
		want        bool
	}{
		{true, nil, true},
		{true, map[string]string{"TERM": "xterm-256color"}, true},
		{true, map[string]string{"NO_COLOR": ""}, true}, // set but empty counts as not set
		{true, map[string]string{"NO_COLOR": "1"}, false},
		{true, map[string]string{"TERM": "dumb"}, false},
		{false, nil, false},
	} {
		got := wantsColor(test.interactive, func(name string) string { return test.env[name] })
		if got != test.want {
			t.Errorf("interactive %t, %v: got %t", test.interactive, test.env, got)
		}
	}
}

func TestStyleForFile(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	for _, w := range []interface{ Write([]byte) (int, error) }{f, &bytes.Buffer{}} {
		if Interactive(w) {
			t.Errorf("%T is taken for a terminal", w)
		}
		if got := StyleFor(w).Bad("x"); got != "x" {
			t.Errorf("%T is painted: %q", w, got)
		}
	}
}

func TestNoColorOnTerminal(t *testing.T) {
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() })
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if got := StyleFor(device).Bad("x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("not painted: %q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := StyleFor(device).Bad("x"); got != "x" {
		t.Errorf("painted in spite of NO_COLOR: %q", got)
	}
}

func TestStyle(t *testing.T) {
	for _, paint := range []func(Style, string) string{Style.Bold, Style.Dim, Style.Good, Style.Bad, Style.Hint, Style.Label} {
		if got := paint(Style{}, "x"); got != "x" {
			t.Errorf("the zero Style paints: %q", got)
		}
		if got := paint(Colored(), "x"); !strings.HasPrefix(got, "\x1b[") || !strings.HasSuffix(got, "mx\x1b[0m") {
			t.Errorf("painted as %q", got)
		}
		if got := paint(Colored(), ""); got != "" {
			t.Errorf("nothing is painted as %q", got)
		}
	}
	if one, other := Colored().Label("moderation"), Colored().Label("analytics"); one[:6] == other[:6] {
		t.Errorf("%q and %q look the same", one, other)
	}
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":      "plain\ttext\n",
		"日本語 👩‍👩‍👧":          "日本語 👩‍👩‍👧",
		"a\r\nb":             "a\nb",
		"a\rb":               `a\rb`,
		"\x1b[31mred":        `\x1b[31mred`,
		"\x00\x7f\u009b":     `\x00\x7f\u009b`,
		"abc\u202ecba\u2066": `abc\u202ecba\u2066`,
	} {
		if got := Safe(in); got != want {
			t.Errorf("Safe(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSafeIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		if got := Safe(text); strings.IndexFunc(got, unsafe) >= 0 || Safe(got) != got {
			t.Fatalf("Safe(%q) = %q", text, got)
		}
	})
}
