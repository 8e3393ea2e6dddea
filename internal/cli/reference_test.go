package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestReference compares the end of docs/cli.md with what the commands say of themselves; -update writes it.
func TestReference(t *testing.T) {
	const path, mark = "../../docs/cli.md", "## Reference\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	guide, _, ok := strings.Cut(string(text), mark)
	if !ok {
		t.Fatalf("%s has no heading %q", path, mark)
	}
	var b bytes.Buffer
	fmt.Fprint(&b, guide, mark)
	root := NewRoot("millrace")
	root.InitDefaultHelpCmd()
	writeReference(&b, root)
	compareGolden(t, path, b.Bytes())
}

// writeReference writes a section for each command that does something.
func writeReference(b *bytes.Buffer, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		if c.HasSubCommands() {
			writeReference(b, c)
			if !c.HasExample() { // it does nothing itself
				continue
			}
		}
		cmd.InitDefaultHelpFlag()
		fmt.Fprintf(b, "\n### `%s`\n\n%s\n\n```\n%s\n", c.CommandPath(), strings.TrimSpace(c.Long), c.UseLine())
		if c.HasExample() {
			fmt.Fprintf(b, "\n%s\n", c.Example)
		}
		fmt.Fprintf(b, "\n%s```\n", c.LocalFlags().FlagUsages())
	}
}

// TestHelp has each command print its help, as a command of kubectl too.
func TestHelp(t *testing.T) {
	for program, name := range map[string]string{"millrace": "millrace", "/bin/kubectl-millrace": "kubectl millrace", `kubectl-millrace.exe`: "kubectl millrace"} {
		var visit func(cmd *cobra.Command, args []string)
		visit = func(cmd *cobra.Command, args []string) {
			got := runProgram(t, program, append(args, "--help"), nil)
			usage := "Usage:\n  " + strings.Join(append([]string{name}, args...), " ")
			if got.exit != ExitOK || got.stderr != "" || !strings.Contains(got.stdout, usage) {
				t.Errorf("%s %v --help: exit code %d, want %q in\n%s%s", program, args, got.exit, usage, got.stdout, got.stderr)
			}
			for _, c := range cmd.Commands() {
				if !c.Hidden {
					visit(c, append(args[:len(args):len(args)], c.Name()))
				}
			}
		}
		visit(NewRoot(program), nil)
	}
}
