// Package archtest holds the import rules of this module and checks them in its test. The rules are what keeps the
// packages small enough to read one at a time: who may know whom, and which package alone knows a library. Its tests also
// hold the documents to what they link to.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Package is what the rules look at in one package. Test files are not part of it: they may import what they like.
type Package struct {
	// Path is the import path.
	Path string
	// Imports are the import paths of the non-test files, without the standard library.
	Imports []string
}

// Rules are the constraints on imports. All paths stand for the package and those below it.
type Rules struct {
	// Module is the path of the module whose packages are held to the rules.
	Module string
	// Layers say which packages of the module may import which. Their paths are relative to Module.
	Layers []Layer
	// Confined say which packages of the module may import a library.
	Confined []Confined
	// Frugal say which libraries are the only ones that some packages of the module may import.
	Frugal []Frugal
	// Banned are libraries that may not be linked at all, not even by way of another library.
	Banned []Banned
	// Lean are libraries that may not be linked into some programs.
	Lean []Lean
	// Exempt are the paths, relative to Module, of packages that serve tests only. No other package may import them.
	Exempt []string
}

// Layer is a set of packages with what they may import of the module besides each other. The layer with the longest
// matching path decides; a package without a layer breaks the rules.
type Layer struct {
	// Path of the layer's packages.
	Path string
	// May lists the paths they may import, except packages that have a longer path in MayNot.
	May, MayNot []string
	// Why the layer is where it is, for the message of a violation.
	Why string
}

// Confined is a library that few packages may import.
type Confined struct {
	// Library is a prefix of the import paths.
	Library string
	// To lists the only packages that may import it.
	To []string
	// Why it is confined.
	Why string
}

// Frugal is a set of packages that may import few libraries.
type Frugal struct {
	// Path of the packages.
	Path string
	// May lists the prefixes of the import paths allowed.
	May []string
	// Why they are frugal.
	Why string
}

// Banned is a library that may not be linked.
type Banned struct {
	// Library is a prefix of the import paths.
	Library string
	// Why it is banned.
	Why string
}

// Lean is a library that may not be linked into some programs, not even by way of another library.
type Lean struct {
	// Library is a prefix of the import paths.
	Library string
	// Programs are the paths of the programs.
	Programs []string
	// Why they do without it.
	Why string
}

// Check returns one line for each import that breaks the rules, sorted; none if all is well.
func (r Rules) Check(packages []Package) []string {
	var violations []string
	for _, p := range packages {
		for _, imported := range p.Imports {
			violations = append(violations, r.checkBanned(p, imported)...)
		}
		if path, ours := r.relative(p.Path); ours && !underAny(path, r.Exempt) {
			violations = append(violations, r.checkPackage(path, p.Imports)...)
		}
	}
	violations = append(violations, r.checkLean(packages)...)
	slices.Sort(violations)
	return violations
}

// checkLean follows the imports of programs.
func (r Rules) checkLean(packages []Package) []string {
	imports := map[string][]string{}
	for _, p := range packages {
		imports[p.Path] = p.Imports
	}
	var violations []string
	for _, l := range r.Lean {
		for _, program := range l.Programs {
			from := r.Module + "/" + program
			linked := []string{from}
			by := map[string]string{from: ""} // who imports a package
			for i := 0; i < len(linked); i++ {
				if under(linked[i], l.Library) {
					violations = append(violations, fmt.Sprintf("%s must not be linked with %s, which %s imports: %s",
						program, linked[i], by[linked[i]], l.Why))
					break
				}
				for _, imported := range imports[linked[i]] {
					if _, known := by[imported]; !known {
						by[imported], linked = linked[i], append(linked, imported)
					}
				}
			}
		}
	}
	return violations
}

// checkPackage holds the imports of the module's package at the relative path to all rules but the bans.
func (r Rules) checkPackage(path string, imports []string) []string {
	layer := r.layer(path)
	if layer == nil {
		return []string{fmt.Sprintf("%s has no layer: give it one in internal/archtest/rules.go, "+
			"so that everybody knows what it may import", path)}
	}
	var violations []string
	for _, imported := range imports {
		if target, ours := r.relative(imported); ours {
			violations = append(violations, r.checkLayer(layer, path, target)...)
		} else {
			violations = append(violations, r.checkLibrary(path, imported)...)
		}
	}
	return violations
}

func (r Rules) checkLayer(layer *Layer, path, target string) []string {
	switch {
	case underAny(target, r.Exempt):
		return violation(path, target, "it is for tests only and must not end up in a program")
	case under(target, layer.Path) && r.layer(target) == layer:
		return nil
	case !underAny(target, layer.May), underAny(target, layer.MayNot):
		return violation(path, target, layer.Why)
	}
	return nil
}

func (r Rules) checkLibrary(path, imported string) []string {
	var violations []string
	for _, c := range r.Confined {
		if under(imported, c.Library) && !underAny(path, c.To) {
			violations = append(violations, violation(path, imported, c.Why)...)
		}
	}
	for _, f := range r.Frugal {
		if under(path, f.Path) && !underAny(imported, f.May) {
			violations = append(violations, violation(path, imported, f.Why)...)
		}
	}
	return violations
}

func (r Rules) checkBanned(p Package, imported string) []string {
	var violations []string
	for _, b := range r.Banned {
		if under(imported, b.Library) && !under(p.Path, b.Library) {
			violations = append(violations, violation(p.Path, imported, b.Why)...)
		}
	}
	return violations
}

// layer returns the layer with the longest path that holds the package, nil if none does.
func (r Rules) layer(path string) *Layer {
	var longest *Layer
	for i := range r.Layers {
		l := &r.Layers[i]
		if under(path, l.Path) && (longest == nil || len(l.Path) > len(longest.Path)) {
			longest = l
		}
	}
	return longest
}

// relative returns the path of a package of the module below it, and whether it is one.
func (r Rules) relative(path string) (string, bool) {
	return strings.CutPrefix(path, r.Module+"/")
}

func violation(from, to, why string) []string {
	return []string{fmt.Sprintf("%s must not import %s: %s", from, to, why)}
}

// under says whether a path is root or below it, by whole segments.
func under(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

func underAny(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return under(path, root) })
}
