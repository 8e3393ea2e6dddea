// Command print prints the version it was linked with.
package main

import (
	"fmt"

	"millrace.dev/internal/version"
)

func main() { fmt.Println(version.String()) }
