// Package version tells which build of Millrace is running.
package version

import (
	"cmp"
	"runtime/debug"
)

// linked is set when the program is linked (-X millrace.dev/internal/version.linked=v1.2.3) and never changes; it is
// empty in a program built without that flag.
var linked string

// String is the version of the running program: the one given when it was linked, else the module version that the go
// command recorded, as it does for `go install millrace.dev/cmd/millrace@v1.2.3`, else "devel". It is never empty.
func String() string {
	return cmp.Or(linked, recorded(), "devel")
}

// recorded is the module version in the build information, empty if there is none.
func recorded() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "(devel)" {
		return ""
	}
	return info.Main.Version
}
