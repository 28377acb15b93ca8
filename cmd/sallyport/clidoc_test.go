package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestCommandLineIsDocumented compares docs/cli.md with the verbs and flags
// that the program has. `make docs` writes it anew.
func TestCommandLineIsDocumented(t *testing.T) {
	const path = "../../docs/cli.md"
	want := commandLineDoc(t)
	if os.Getenv("SALLYPORT_WRITE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/cli.md is not what the program says of itself: run `make docs`")
	}
}

func commandLineDoc(t *testing.T) string {
	t.Helper()
	parser, err := kong.New(&commands{}, kong.Name("sallyport"), kong.Vars{"regions": defaultRegions})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# The command line

Written by ` + "`make docs`" + ` from the program itself.

Global flags stand before or after the verb. The API's address and token come
from the folder that ` + "`--data`" + ` names, or from ` + "`SALLYPORT_API`" + ` and
` + "`SALLYPORT_TOKEN`" + `. Exit codes: 0 done, 1 failed, 2 wrong usage. With ` + "`--json`" + `
a listing is one array and everything else one object; an error is a problem
document (RFC 9457) on standard error. Secrets come by ` + "`--stdin` or `--file`" + `.

`)
	b.WriteString("## Everywhere\n\n")
	writeFlags(&b, parser.Model.Flags)
	for _, node := range parser.Model.Children {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", node.Name, node.Help)
		if len(node.Children) == 0 {
			writeVerb(&b, node)
		}
		for _, leaf := range node.Leaves(true) {
			if leaf != node {
				writeVerb(&b, leaf)
			}
		}
	}
	return b.String()
}

func writeVerb(b *strings.Builder, n *kong.Node) {
	words := []string{n.FullPath()}
	for _, p := range n.Positional {
		word := strings.ToUpper(p.Name)
		if !p.Required {
			word = "[" + word + "]"
		}
		words = append(words, word)
	}
	fmt.Fprintf(b, "\n### `%s`\n\n", strings.Join(words, " "))
	if n.Help != "" && n.Parent.Type == kong.CommandNode {
		fmt.Fprintf(b, "%s\n\n", n.Help)
	}
	writeFlags(b, n.Flags)
}

func writeFlags(b *strings.Builder, flags []*kong.Flag) {
	for _, f := range flags {
		if f.Name == "help" {
			continue
		}
		value := ""
		if !f.IsBool() {
			value = " " + strings.ToUpper(f.FormatPlaceHolder())
		}
		notes := ""
		if f.Required {
			notes = " Required."
		}
		if f.HasDefault && f.Default != "" {
			notes += " Default " + f.Default + "."
		}
		fmt.Fprintf(b, "- `--%s%s` %s%s\n", f.Name, value, f.Help, notes)
	}
}
