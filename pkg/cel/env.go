// Package cel compiles and evaluates the CEL expressions of Trigger filters (contract rows 19 and 20).
//
// An expression sees two variables: ce, a map of all attributes and extensions of the event, and data, its JSON body.
// It must yield a boolean. Every expression is bounded twice: [Env.Compile] refuses what could cost too much on the
// largest event, and [Program.Eval] stops what does cost too much on the event at hand. Evaluation is a function of the
// event alone: there is no clock, no randomness and no I/O.
package cel

import (
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/ext"
)

// Env is the environment in which expressions compile: variables, functions and limits. It takes milliseconds to make
// and is safe for concurrent use: build one and share it.
type Env struct {
	env  *cel.Env
	opts []cel.ProgramOption
}

// NewEnv builds the environment.
func NewEnv() (*Env, error) {
	env, err := cel.NewEnv(append(libraries(), limits()...)...)
	if err != nil {
		return nil, fmt.Errorf("build CEL environment: %w", err)
	}
	return &Env{env: env, opts: []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}}, nil
}

// libraries lists variables and functions. Versions are pinned: a newer cel-go must not change what filters mean.
func libraries() []cel.EnvOption {
	return []cel.EnvOption{
		cel.Variable("ce", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("data", cel.DynType),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.OptionalTypes(cel.OptionalTypesVersion(2)),
		ext.Strings(ext.StringsVersion(5)),
		ext.Math(ext.MathVersion(3)),
		ext.Lists(ext.ListsVersion(4), ext.ListsMaxRangeSize(maxRange)),
		ext.Sets(ext.SetsVersion(1)),
		ext.Encoders(ext.EncodersVersion(0)),
		ext.Bindings(ext.BindingsVersion(1)),
		ext.TwoVarComprehensions(ext.TwoVarComprehensionsVersion(0)),
	}
}

func limits() []cel.EnvOption {
	return []cel.EnvOption{
		cel.ParserExpressionSizeLimit(MaxExpressionBytes),
		cel.ParserRecursionLimit(MaxParserDepth),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(MaxNodes),
		cel.RegexProgramSizeLimit(MaxRegexProgram),
		cel.ASTValidators(
			cel.ValidateComprehensionNestingLimit(MaxComprehensionNesting),
			cel.ValidateBindNestingLimit(MaxBindNesting),
			cel.ValidateRegexLiterals(),
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
		),
	}
}

const maxRange = 10_000

// Compile checks an expression and prepares it. Its error is a [*CompileError].
func (e *Env) Compile(expr string) (*Program, error) {
	if len(expr) > MaxExpressionBytes {
		return nil, &CompileError{
			Expr:    expr,
			Message: fmt.Sprintf("the expression has %d bytes, the limit is %d", len(expr), MaxExpressionBytes),
			Hint:    "split it into several elements of filters",
		}
	}
	checked, issues := e.env.Compile(expr)
	if err := issues.Err(); err != nil {
		return nil, &CompileError{Expr: expr, Message: err.Error()}
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, &CompileError{Expr: expr, Message: fmt.Sprintf("the expression must be a boolean, this is of type %s", t)}
	}
	metered := true
	opts := e.opts
	if metered {
		opts = append(opts[:len(opts):len(opts)], cel.CostLimit(MaxCost), cel.InterruptCheckFrequency(64))
	}
	prog, err := e.env.Program(checked, opts...)
	if err != nil {
		return nil, &CompileError{Expr: expr, Message: err.Error()}
	}
	root := checked.NativeRep().Expr()
	return &Program{
		expr:       expr,
		ast:        checked,
		prog:       prog,
		equalities: equalities(root),
		usesData:   mentions(root, "data"),
		metered:    metered,
	}, nil
}

// mentions reports whether e has an identifier of that name. A loop variable of the same name counts as well.
func mentions(e ast.Expr, name string) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.IdentKind && e.AsIdent() == name
	}))
	return found
}
