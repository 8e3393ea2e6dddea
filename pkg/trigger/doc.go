// Package trigger decides which Triggers an event goes to.
//
// A [Compiler] turns a Trigger's filters, in all their dialects, into a [Filter]; a [Table] indexes many filters so that
// an event costs what its matches cost, not what all Triggers together would; an [Explanation] says why a filter
// did or did not match. Everything here is a pure function of the Trigger and the event: no I/O, no clock but the
// deadline that bounds CEL.
//
// # Dialects
//
// The dialects are those of the Knative Eventing specification (attributes, exact, prefix, suffix, all, any, not, cesql)
// and Millrace's own cel and sourceAndType. They compare the canonical string form of an attribute's value
// (CloudEvents 1.0, section 3), so that exact "5" also matches the integer 5. Comparison is byte for byte, case included.
// An attribute that the event lacks satisfies no comparison, and a negated comparison of it is thus true.
//
// An expression of cesql or cel that fails at evaluation, say because it divides by zero or asks for an attribute that
// is not there, does not match, and the failure is counted in [Input.Errors]. This holds for the expression alone:
// under not, a failed expression is a non-match like any other and its negation matches.
package trigger
