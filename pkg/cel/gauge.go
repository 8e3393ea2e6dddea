package cel

import (
	"math/bits"
	"regexp/syntax"
	"strings"

	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// Results that are larger than these are errors, before they are made.
const (
	// maxText is the longest string or byte sequence that a function makes, in bytes.
	maxText = 4 << 20
	// maxElements is the longest list that a function makes.
	maxElements = 1 << 20
	// maxRange is the longest list that lists.range makes.
	maxRange = 10_000
)

// How much work a unit is: about 50 ns.
const (
	// fastBytes is how many bytes a function compares or copies for a unit.
	fastBytes = 64
	// slowBytes is how many bytes a function takes apart into characters for a unit.
	slowBytes = 10
	// scannedBytes is how many comparisons of characters a naive search makes for a unit.
	scannedBytes = 50
	// matchedBytes is how many bytes a regular expression of one instruction goes through for a unit.
	matchedBytes = 10
)

// gauge tells, before a call, how many units of work it takes at most, or why it must not be made. Arguments may be of
// any type: a call that their types do not allow is refused by the function itself.
type gauge func(args []ref.Val) (work int, err error)

// gauges lists the functions whose work or result depends on the size of their arguments. All others take one unit.
func gauges() map[string]gauge {
	all := map[string]gauge{
		operators.Add:           gaugeAdd,
		operators.In:            gaugeIn,
		overloads.Matches:       gaugeMatches,
		"replace":               gaugeReplace,
		"join":                  gaugeJoin,
		"split":                 gaugeSplit,
		"format":                gaugeFormat,
		"strings.quote":         gaugeGrowing,
		"base64.encode":         gaugeGrowing,
		"flatten":               gaugeFlatten,
		"lists.range":           gaugeRange,
		"distinct":              gaugeDistinct,
		"sort":                  gaugeSort,
		"@sortByAssociatedKeys": gaugeSort,
		"sets.contains":         gaugeSets,
		"sets.intersects":       gaugeSets,
		"sets.equivalent":       gaugeSets,
		"indexOf":               gaugeSearch,
		"lastIndexOf":           gaugeSearch,
	}
	for _, name := range []string{overloads.Contains, overloads.StartsWith, overloads.EndsWith, overloads.Size} {
		all[name] = scan(fastBytes)
	}
	for _, name := range []string{
		"charAt", "substring", "lowerAscii", "upperAscii", "trim", "reverse", "slice", "base64.decode",
		"math.@min", "math.@max", overloads.TypeConvertBytes, overloads.TypeConvertString,
		operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
	} {
		all[name] = scan(slowBytes)
	}
	return all
}

// scan is for functions that go once through their arguments. The elements of a list count; those within them do not.
func scan(bytesPerUnit int) gauge {
	return func(args []ref.Val) (int, error) {
		work := 1
		for _, a := range args {
			work += textSize(a) / bytesPerUnit
		}
		if bytesPerUnit == slowBytes {
			work += listSize(args[0])
		}
		return work, nil
	}
}

func gaugeAdd(args []ref.Val) (int, error) {
	if n := listSize(args[0]) + listSize(args[1]); n > maxElements {
		return 0, kindErrorf(KindCost, "a list of %d elements is too long, the limit is %d", n, maxElements)
	}
	n := textSize(args[0]) + textSize(args[1])
	return 1 + n/fastBytes, limitText(n)
}

// gaugeIn is for lists; maps are hash tables.
func gaugeIn(args []ref.Val) (int, error) {
	n := listSize(args[1])
	if n == 0 {
		return 1, nil
	}
	return min(weight(args[0], MaxCost)*n, weight(args[1], MaxCost)), nil
}

func gaugeMatches(args []ref.Val) (int, error) {
	pattern, ok := args[1].(types.String)
	if !ok {
		return 1, nil
	}
	size, err := regexSize(string(pattern))
	if err != nil {
		return 0, err
	}
	return 10*size + matchWork(textSize(args[0]), size), nil
}

// regexSize returns the number of instructions of a regular expression that is valid and not too large. It does not use
// the function of the evaluator for this, which panics when it meets a counted repetition such as x{3}.
func regexSize(pattern string) (int, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, kindErrorf(KindOther, "the regular expression is not valid: %v", err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return 0, kindErrorf(KindOther, "the regular expression is not valid: %v", err)
	}
	if n := len(prog.Inst); n > MaxRegexProgram {
		return 0, kindErrorf(KindCost, "the regular expression has %d instructions, the limit is %d", n, MaxRegexProgram)
	}
	return len(prog.Inst), nil
}

func matchWork(text, program int) int { return 1 + text*program/matchedBytes }

func gaugeReplace(args []ref.Val) (int, error) {
	s, old, repl := textSize(args[0]), textSize(args[1]), textSize(args[2])
	places := s + 1
	if old > 0 {
		places = s / old
	}
	if len(args) > 3 {
		if n, ok := args[3].(types.Int); ok && n >= 0 && int64(n) < int64(places) {
			places = int(n)
		}
	}
	n := s + places*repl
	return 1 + n/fastBytes + places, limitText(n)
}

func gaugeJoin(args []ref.Val) (int, error) {
	list, ok := args[0].(traits.Lister)
	if !ok {
		return 1, nil
	}
	separator := 0
	if len(args) > 1 {
		separator = textSize(args[1])
	}
	total := 0
	for it := list.Iterator(); it.HasNext() == types.True && total <= maxText; {
		total += separator + textSize(it.Next())
	}
	return 1 + listSize(list) + total/fastBytes, limitText(total)
}

func gaugeSplit(args []ref.Val) (int, error) {
	s, _ := args[0].(types.String)
	separator, _ := args[1].(types.String)
	n := strings.Count(string(s), string(separator)) + 1
	if n > maxElements {
		return 0, kindErrorf(KindCost, "split would make a list of %d elements, the limit is %d", n, maxElements)
	}
	return n + len(s)/fastBytes, nil
}

// gaugeFormat reckons with 32 bytes for a number and its separator. A clause takes up to 100 decimals.
func gaugeFormat(args []ref.Val) (int, error) {
	n := textSize(args[0]) + 128*weight(args[1], MaxCost)
	return 1 + n/slowBytes, limitText(n)
}

// gaugeGrowing is for functions that make a text longer, but not more than twice as long.
func gaugeGrowing(args []ref.Val) (int, error) {
	n := 2 * textSize(args[0])
	return 1 + n/slowBytes, limitText(n)
}

func gaugeFlatten(args []ref.Val) (int, error) { return weight(args[0], MaxCost), nil }

// gaugeRange leaves it to the function to refuse more than maxRange.
func gaugeRange(args []ref.Val) (int, error) {
	n, _ := args[0].(types.Int)
	return 1 + int(min(max(n, 0), maxRange))/8, nil
}

func gaugeDistinct(args []ref.Val) (int, error) {
	return 1 + listSize(args[0])*weight(args[0], MaxCost), nil
}

// gaugeSort looks at the last argument: the list itself, or the keys by which it is sorted.
func gaugeSort(args []ref.Val) (int, error) {
	keys := args[len(args)-1]
	n := listSize(keys)
	return 1 + weight(keys, MaxCost)*bits.Len(uint(n)) + n*n/4, nil
}

// gaugeSets reckons that comparing two elements costs no more than the smaller of the two.
func gaugeSets(args []ref.Val) (int, error) {
	a, b := args[0], args[1]
	return 1 + 2*min(listSize(a)*weight(b, MaxCost), listSize(b)*weight(a, MaxCost)), nil
}

func gaugeSearch(args []ref.Val) (int, error) {
	s, sub := textSize(args[0]), textSize(args[1])
	return 1 + (s+sub)/slowBytes + s*sub/scannedBytes, nil
}

func limitText(n int) error {
	if n > maxText {
		return kindErrorf(KindCost, "the text may have %d bytes, the limit is %d", n, maxText)
	}
	return nil
}

func textSize(v ref.Val) int {
	switch v := v.(type) {
	case types.String:
		return len(v)
	case types.Bytes:
		return len(v)
	}
	return 0
}

func listSize(v ref.Val) int {
	l, ok := v.(traits.Lister)
	if !ok {
		return 0
	}
	n, _ := l.Size().(types.Int)
	return int(n)
}

func isContainer(v ref.Val) bool {
	switch v.(type) {
	case traits.Lister, traits.Mapper, *types.Optional:
		return true
	}
	return false
}

// weight counts the elements of v and of all lists and maps in it, where a string counts once for every 64 bytes begun.
// It stops soon after limit.
func weight(v ref.Val, limit int) int {
	n := 1 + textSize(v)/fastBytes
	switch v := v.(type) {
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True && n <= limit; {
			n += weight(it.Next(), limit-n)
		}
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True && n <= limit; {
			k := it.Next()
			n += weight(k, limit-n) + weight(v.Get(k), limit-n)
		}
	case *types.Optional:
		if v.HasValue() {
			n += weight(v.GetValue(), limit-n)
		}
	}
	return n
}
