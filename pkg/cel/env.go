// Package cel compiles and evaluates the CEL expressions of Trigger filters (contract rows 19 and 20).
//
// An expression sees two variables: ce, a map of all attributes and extensions of the event, and data, its JSON body.
// It must yield a boolean. Every expression is bounded twice: [Env.Compile] refuses what could cost too much on the
// largest event, and [Program.Eval] stops what does cost too much on the event at hand. Evaluation is a function of the
// event alone: there is no clock and no randomness.
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
	env       *cel.Env
	meter     *meter
	functions []string // for hints
}

// NewEnv builds the environment.
func NewEnv() (*Env, error) {
	env, err := cel.NewEnv(append(libraries(), limits()...)...)
	if err != nil {
		return nil, fmt.Errorf("build CEL environment: %w", err)
	}
	m, err := newMeter(env)
	if err != nil {
		return nil, fmt.Errorf("build CEL environment: %w", err)
	}
	return &Env{env: env, meter: m, functions: functionNames(env)}, nil
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
		cel.EnableMacroCallTracking(), // to show parts of an expression as they were written
		cel.ParserExpressionSizeLimit(MaxExpressionBytes),
		cel.ParserRecursionLimit(MaxParserDepth),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(MaxNodes),
		cel.ASTValidators(
			cel.ValidateComprehensionNestingLimit(MaxComprehensionNesting),
			cel.ValidateBindNestingLimit(MaxBindNesting),
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
		),
	}
}

// Compile checks an expression and prepares it. Its error is a [*CompileError]; Compile does not panic.
func (e *Env) Compile(expr string) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, &CompileError{Expr: expr, Message: fmt.Sprintf("internal error: %v", r)}
		}
	}()
	checked, err := e.check(expr)
	if err != nil {
		return nil, err
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, &CompileError{
			Expr:    expr,
			Message: fmt.Sprintf("the expression must be a boolean, but it is of type %s", t),
			Hint:    "compare it with something, as in ... == \"value\"",
		}
	}
	return e.program(expr, checked)
}

// check parses and type-checks an expression of any type.
func (e *Env) check(expr string) (*cel.Ast, error) {
	if len(expr) > MaxExpressionBytes {
		return nil, &CompileError{
			Expr:    expr,
			Message: fmt.Sprintf("the expression has %d bytes, the limit is %d", len(expr), MaxExpressionBytes),
			Hint:    "split it into several elements of filters",
		}
	}
	checked, issues := e.env.Compile(expr)
	if issues.Err() != nil {
		return nil, e.diagnose(expr, issues)
	}
	if err := lint(expr, checked.NativeRep()); err != nil {
		return nil, err
	}
	return checked, nil
}

// program plans a checked expression whose cost is within the limits.
func (e *Env) program(expr string, checked *cel.Ast) (*Program, error) {
	root := checked.NativeRep().Expr()
	cost := e.staticCost(checked)
	if cost > MaxStaticCost {
		return nil, e.tooCostly(expr, checked.NativeRep(), cost)
	}
	p := &Program{
		env:        e,
		expr:       expr,
		equalities: equalities(root),
		usesData:   mentions(root, "data"),
		cost:       cost,
		loops:      loops(root),
	}
	options := []cel.ProgramOption{
		cel.EvalOptions(cel.OptOptimize),
		cel.CustomDecoratorV2(e.meter.decorate(p.loops)),
	}
	if p.loops {
		options = append(options, cel.InterruptCheckFrequency(1))
	}
	prog, err := e.env.Program(checked, options...)
	if err != nil {
		return nil, &CompileError{Expr: expr, Message: err.Error()}
	}
	p.prog = prog
	return p, nil
}

// mentions reports whether e has an identifier of that name.
func mentions(e ast.Expr, name string) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		found = found || isIdent(e, name)
	}))
	return found
}

func isIdent(e ast.Expr, name string) bool {
	if e.Kind() != ast.IdentKind {
		return false
	}
	ident := e.AsIdent()
	return ident == name || len(ident) > 0 && ident[0] == '.' && ident[1:] == name
}
