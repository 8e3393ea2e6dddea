package trigger

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"

	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
)

// hint says what may be wrong with a comparison that is false.
func (n *attributeNode) hint(e *event.Event) string {
	got, ok := e.Get(n.name)
	if !ok {
		return absentHint(e, n.name)
	}
	switch n.op {
	case opPrefix:
		return nearMiss(n.value, got[:min(len(got), len(n.value))])
	case opSuffix:
		return nearMiss(n.value, got[max(0, len(got)-len(n.value)):])
	case opPresent:
		return "the attribute is there but empty"
	default:
		return equalHint(n.value, got)
	}
}

// hint says what may be wrong with an expression that is false, by the equalities in it.
func (n *sqlNode) hint(e *event.Event) string {
	for _, c := range n.equalities {
		got, ok := e.Get(c.name)
		if !ok {
			return absentHint(e, c.name)
		}
		if slices.Contains(c.values, got) {
			continue
		}
		for _, want := range c.values {
			if hint := equalHint(want, got); hint != "" {
				return c.name + ": " + hint
			}
		}
	}
	return ""
}

func absentHint(e *event.Event, name string) string {
	best, distance := "", maxDistance+1
	for _, a := range e.Attributes {
		if d := editDistance(name, a.Name); d < distance || d == distance && a.Name < best {
			best, distance = a.Name, d
		}
	}
	if best == "" || !near(name, distance) {
		return ""
	}
	return fmt.Sprintf("the event has no %s, but it has %s", name, best)
}

func equalHint(want, got string) string {
	if hint := nearMiss(want, got); hint != "" {
		return hint
	}
	switch {
	case len(want) < 3:
		return ""
	case strings.HasPrefix(got, want):
		return fmt.Sprintf("the value only starts with %q; prefix would match", want)
	case strings.HasSuffix(got, want):
		return fmt.Sprintf("the value only ends with %q; suffix would match", want)
	}
	return ""
}

// nearMiss says in which small way got differs from want, if in one.
func nearMiss(want, got string) string {
	switch {
	case want == got || want == "" || got == "":
		return ""
	case strings.EqualFold(want, got):
		return fmt.Sprintf("%q differs only in case, and case matters", got)
	case strings.TrimSpace(want) == strings.TrimSpace(got):
		return fmt.Sprintf("%q differs only in the space around it", got)
	case strings.TrimRight(want, "/") == strings.TrimRight(got, "/"):
		return fmt.Sprintf("%q differs only by a slash at the end", got)
	case near(want, editDistance(want, got)):
		return fmt.Sprintf("%q is nearly %q; is one of them misspelled?", got, want)
	}
	return ""
}

const (
	maxDistance = 2   // more edits than these make another word
	maxCompared = 256 // longer texts, in bytes, are not compared for misspellings
)

// near reports whether so many edits are few for the word: at most one in four characters.
func near(word string, distance int) bool {
	return distance <= maxDistance && distance*4 <= len(word)
}

// editDistance returns the number of characters to insert, remove or replace to make b of a, or a large number if that is
// beyond hope.
func editDistance(a, b string) int {
	if len(a) > maxCompared || len(b) > maxCompared {
		return maxCompared
	}
	return levenshtein.Distance(a, b, nil)
}

// dataHint says why an expression cannot see the body, if it cannot.
func dataHint(in *Input) string {
	if _, ok := in.cel.Data(); ok {
		return ""
	}
	contentType, ok := in.event.Get(event.DataContentType)
	switch {
	case len(in.event.Data) == 0:
		return "data is absent: the event has no body"
	case in.cel.DataParses() > 0:
		return "data is absent: the body is not valid JSON"
	case !ok:
		return "data is absent: the event has no datacontenttype; it must be application/json"
	default:
		return fmt.Sprintf("data is absent: datacontenttype is %q, which is not JSON", contentType)
	}
}

// celHint says what may be wrong with a CEL comparison that is false or failed, by its text and the values in it.
func celHint(in *Input, c cel.Explanation) string {
	literals := stringLiterals(c.Expr)
	for _, v := range c.Values {
		if name, ok := strings.CutPrefix(v.Expr, "ce."); ok && in.event.Lookup(name) == nil {
			return absentHint(in.event, name)
		}
		if hint := dataKeyHint(in, v.Expr); hint != "" {
			return hint
		}
		text, err := strconv.Unquote(v.Value)
		if err != nil { // no string
			if slices.Contains(literals, v.Value) {
				return fmt.Sprintf("%s is %s and not the text %q; write %s without quotes", v.Expr, v.Value, v.Value, v.Value)
			}
			continue
		}
		if isNumber(text) && containsNumber(c.Expr, text) {
			return fmt.Sprintf("%s is the text %q and not a number; write int(%s)", v.Expr, text, v.Expr)
		}
		if len(literals) == 1 && len(c.Values) == 1 {
			return nearMiss(literals[0], text)
		}
	}
	return ""
}

// dataKeyHint names the key of the body that somebody may have meant who wrote a path such as data.user.name of which one
// step is not there.
func dataKeyHint(in *Input, path string) string {
	rest, ok := strings.CutPrefix(path, "data.")
	if !ok {
		return ""
	}
	at, _ := in.cel.Data()
	place := "data"
	for _, key := range strings.Split(rest, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return ""
		}
		if at, ok = object[key]; ok {
			place += "." + key
			continue
		}
		if similar := similarKey(object, key); similar != "" {
			return fmt.Sprintf("there is no %s.%s, but there is %s.%s", place, key, place, similar)
		}
		return ""
	}
	return ""
}

// similarKey returns the key that differs from name in case or by a slip, the first in order of the alphabet.
func similarKey(object map[string]any, name string) string {
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if strings.EqualFold(key, name) || near(name, editDistance(name, key)) {
			return key
		}
	}
	return ""
}

// stringLiterals returns the plain string literals of a CEL expression.
func stringLiterals(expr string) []string {
	var found []string
	for _, quoted := range regexp.MustCompile(`"[^"\\]*"|'[^'\\]*'`).FindAllString(expr, -1) {
		found = append(found, quoted[1:len(quoted)-1])
	}
	return found
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

// containsNumber reports whether the expression has the number outside of quotes and longer words.
func containsNumber(expr, number string) bool {
	bare := regexp.MustCompile(`"[^"]*"|'[^']*'`).ReplaceAllString(expr, "")
	return slices.Contains(regexp.MustCompile(`[\w.+-]+`).FindAllString(bare, -1), number)
}
