package cel

import "time"

// The bounds of an expression, of its evaluation and of the data it sees. All but [EventDeadline] and [MinSlice] give the
// same answer for the same expression and event on every machine.
const (
	// MaxExpressionBytes is the longest expression that compiles.
	MaxExpressionBytes = 4 << 10
	// MaxParserDepth is how deep the parser follows parentheses, operators and selections into each other.
	MaxParserDepth = 100
	// MaxNodes is the largest number of syntax nodes of an expression after its macros are expanded.
	MaxNodes = 2000
	// MaxComprehensionNesting is how deep macros that loop (all, exists, map, filter, ...) may stand in each other.
	MaxComprehensionNesting = 2
	// MaxBindNesting is how deep cel.bind may stand in itself.
	MaxBindNesting = 8
	// MaxRegexProgram is the largest compiled size, in RE2 instructions, of a regular expression.
	MaxRegexProgram = 1000

	// MaxStaticCost is the highest cost in CEL cost units, estimated for the largest possible event, that compiles.
	MaxStaticCost = 1 << 30
	// MaxCost is how much work one evaluation may take, in units of about 50 ns: a call, a comparison of two elements,
	// some bytes of a text looked at. It is reached in a little more than 10 ms.
	MaxCost = 250_000
	// EventDeadline is how long the costly programs may run together for one event. It starts with the first of them.
	EventDeadline = 10 * time.Millisecond
	// MinSlice is the time that each costly program gets even if others have used up EventDeadline, so that a modest
	// filter of one Trigger is not starved by the filters of its neighbors.
	MinSlice = time.Millisecond

	// MaxDataDepth is how deep arrays and objects of a JSON body may be nested. Deeper ones count as invalid JSON.
	MaxDataDepth = 64
	// MaxDataBytes is the largest body that the estimates reckon with: the default size limit of an event.
	MaxDataBytes = 1 << 20
	// MaxAttributeBytes is the largest total of attribute names and values that the estimates reckon with.
	MaxAttributeBytes = 64 << 10
)
