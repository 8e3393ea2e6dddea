package cel

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompileErrors(t *testing.T) {
	env := newEnv(t)
	tests := []struct {
		expr, position string // position is the snippet's caret line, or "" if there is none
		message, hint  string
	}{
		{`ce.type = "x"`, "        ^", `"=" is not CEL`, "write =="},
		{`ce.type === "x"`, "          ^", `"=" is not CEL`, "write =="},
		{`type == "a"`, "     ^", "does not take", "did you mean ce.type?"},
		{`subject == "a"`, "^", `no variable "subject"`, "did you mean ce.subject?"},
		{`ce_type == "a"`, "^", `no variable "ce_type"`, "did you mean ce.type?"},
		{`cetype == "a"`, "^", `no variable "cetype"`, "did you mean ce.type?"},
		{`amount > 5`, "^", `no variable "amount"`, "ce.amount or data.amount"},
		{`event.type == "a"`, "^", `no variable "event"`, "attributes are under ce"},
		{`body.x == 1`, "^", `no variable "body"`, "under data"},
		{`ce.time > now`, "          ^", `no variable "now"`, "no clock"},
		{`now() > ce.time`, "   ^", `no function "now"`, ""},
		{`ce.type.startWith("a")`, "                 ^", `no function "startWith"`, "startsWith"},
		{`ce.type.StartsWith("a")`, "                  ^", `no function "StartsWith"`, "startsWith"},
		{`frobnicate(ce.type)`, "          ^", `no function "frobnicate"`, "documentation"},
		{`ce.type == "a" and true`, "               ^", `"and" is not CEL`, "&&"},
		{`ce.type == "a" OR true`, "               ^", `"OR" is not CEL`, "||"},
		{`true & true`, "     ^", `"&" is not CEL`, "&&"},
		{`true | true`, "     ^", `"|" is not CEL`, "||"},
		{`ce.type <> "a"`, "         ^", `"<>" is not CEL`, "!="},
		{`ce.type LIKE 'a%'`, "        ^", `"LIKE" does not fit`, "CESQL"},
		{`ce.type == 'abc`, "           ^", "no closing quote", "close it"},
		{`ce.type == “a”`, "           ^", "is not CEL", "straight quotes"},
		{`ce.type ~ "a"`, "        ^", "is not CEL", "matches"},
		{`ce.type == "a" &&`, "                 ^", "ends too early", ""},
		{`(ce.type == "a"`, "               ^", `")" is missing`, ""},
		{`ce.type == "a")`, "              ^", "does not fit", ""},
		{`  `, "", "is empty", "leave the filter out"},
		{`ce.type`, "", "", ""},
		{`"x" + ce.type`, "", "must be a boolean", "compare"},
		{`size(ce)`, "", "must be a boolean", "compare"},
		{`ce == "x"`, "   ^", "does not take", "name one"},
		{`ce.Type == "a"`, "  ^", `the name "Type"`, "ce.type"},
		{`ce["ce-type"] == "a"`, "  ^", `the name "ce-type"`, "ce.type"},
		{`has(ce.partitionKey)`, "   ^", `the name "partitionKey"`, "ce.partitionkey"},
		{`"Subject" in ce`, "          ^", `the name "Subject"`, "ce.subject"},
		{`ce.data.x == 1`, "  ^", `no attribute "data"`, "variable data"},
		{`ce.time > "2026-01-01T00:00:00Z"`, "  ^", "is a timestamp", `timestamp("2026-01-01T00:00:00Z")`},
		{`ce.specversion == 1.0`, "  ^", "is a string", "quotes"},
		{`"500" == ce.knativeerrorcode`, "           ^", "is an integer", "quotes"},
		{`[1].exists(data, true)`, "          ^", "must not hide data", "another name"},
		{`ce.time > timestamp("yesterday")`, "                    ^", "timestamp is not valid", "RFC 3339"},
		{`ce.time - ce.time > duration("1 day")`, "                             ^", "duration is not valid", "1h30m"},
		{`ce.type.matches("(?=a)")`, "                ^", "regular expression is not valid", "RE2"},
		{"ce.type == \"a\" &&\n\tce.Foo == \"b\"", "   ^", `the name "Foo"`, "ce.foo"},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			_, err := env.Compile(tt.expr)
			if tt.message == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var compileErr *CompileError
			if !errors.As(err, &compileErr) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(compileErr.Message, tt.message) || !strings.Contains(compileErr.Hint, tt.hint) {
				t.Errorf("message %q, hint %q", compileErr.Message, compileErr.Hint)
			}
			_, caret, _ := strings.Cut(compileErr.Snippet(), "\n")
			if caret != tt.position {
				t.Errorf("at %d:%d:\n%s", compileErr.Line, compileErr.Column, compileErr.Snippet())
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestCompileErrorText(t *testing.T) {
	_, err := newEnv(t).Compile(`ce.type = "x"`)
	if diff := cmp.Diff(`1:9: "=" is not CEL (to compare, write ==)`, err.Error()); diff != "" {
		t.Error(diff)
	}
}
