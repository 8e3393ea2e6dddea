package cel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/cel-go/interpreter"
)

// CompileError says why an expression was refused and what to write instead.
type CompileError struct {
	// Expr is the whole expression.
	Expr string
	// Line and Column tell where the trouble is, both counted from 1, columns in characters. They are 0 if it is not at
	// one place.
	Line, Column int
	// Message says what is wrong.
	Message string
	// Hint says what to do about it, or is empty.
	Hint string
}

// Error returns the position, the message and the hint on one line.
func (e *CompileError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", e.Line, e.Column)
	}
	b.WriteString(e.Message)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Snippet returns the line of the expression that is at fault and below it a caret at the column, or "" if the error
// is not at one place.
func (e *CompileError) Snippet() string {
	lines := strings.Split(e.Expr, "\n")
	if e.Line < 1 || e.Line > len(lines) {
		return ""
	}
	line := strings.ReplaceAll(strings.TrimSuffix(lines[e.Line-1], "\r"), "\t", " ")
	return line + "\n" + strings.Repeat(" ", max(e.Column-1, 0)) + "^"
}

// ErrorKind groups the reasons for which an evaluation has no result. Its String is fit for a metric label.
type ErrorKind uint8

// The kinds of evaluation errors.
const (
	// KindOther is an error of a function, such as a division by zero or a text that is no number.
	KindOther ErrorKind = iota
	// KindMissing is an attribute, field or list element that the event does not have.
	KindMissing
	// KindType is an operation on values of types that it does not take, or a result that is not a boolean.
	KindType
	// KindData is a use of data in an event that has no JSON body, or a value of the body that CEL cannot represent.
	KindData
	// KindAttribute is an attribute whose value is not of the type that its name promises, such as a time of "today".
	KindAttribute
	// KindCost is an evaluation that went beyond [MaxCost] or made too large a value.
	KindCost
	// KindDeadline is an evaluation stopped by [EventDeadline]. Unlike all others, the same evaluation may succeed when
	// it is tried again.
	KindDeadline
	// KindInternal is a fault of the evaluator itself.
	KindInternal
)

// String returns a short lower-case name.
func (k ErrorKind) String() string {
	switch k {
	case KindMissing:
		return "missing"
	case KindType:
		return "type"
	case KindData:
		return "data"
	case KindAttribute:
		return "attribute"
	case KindCost:
		return "cost"
	case KindDeadline:
		return "deadline"
	case KindInternal:
		return "internal"
	default:
		return "other"
	}
}

// EvalError is an evaluation without a result. A Trigger whose filter ends so does not match.
type EvalError struct {
	Kind ErrorKind
	err  error
}

// Error returns what went wrong in words for the author of the expression.
func (e *EvalError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *EvalError) Unwrap() error { return e.err }

// kindError carries its kind through the evaluator, which passes foreign errors on as they are.
type kindError struct {
	kind ErrorKind
	text string
}

func (e *kindError) Error() string { return e.text }

func kindErrorf(kind ErrorKind, format string, args ...any) error {
	return &kindError{kind: kind, text: fmt.Sprintf(format, args...)}
}

func newEvalError(err error) *EvalError {
	kind := kindOf(err)
	if kind == KindDeadline {
		err = fmt.Errorf("the filters of this event took longer than %v: %w", EventDeadline, err)
	}
	return &EvalError{Kind: kind, err: err}
}

// kindOf tells the kinds of the evaluator's own errors by their text, as it does not export their types. It is on the
// way of every event that lacks an attribute, hence no errors.As.
func kindOf(err error) ErrorKind {
	root := err
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch e := e.(type) { //nolint:errorlint // this is the loop of errors.As without its reflection
		case *kindError:
			return e.kind
		case interpreter.EvalCancelledError:
			if e.Cause == interpreter.CostLimitExceeded {
				return KindCost
			}
		}
		root = e
	}
	if kind, ok := kindOfText(root.Error()); ok {
		return kind
	}
	if errors.Is(err, interpreter.InterruptError{}) || errors.Is(err, context.DeadlineExceeded) {
		return KindDeadline
	}
	return KindOther
}

func kindOfText(text string) (ErrorKind, bool) {
	for _, p := range []struct {
		prefix string
		kind   ErrorKind
	}{
		{"no such key", KindMissing},
		{"no such attribute", KindMissing},
		{"no such field", KindMissing},
		{"index out of bounds", KindMissing},
		{"no such overload", KindType},
		{"unsupported", KindType},
		{"type conversion error", KindType},
		{"got '", KindType},
		{"internal error", KindInternal},
	} {
		if strings.HasPrefix(text, p.prefix) {
			return p.kind, true
		}
	}
	return KindOther, false
}
