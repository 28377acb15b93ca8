// Command sallyport is an email security gateway and its command line.
//
// `sallyport serve` runs the gateway, `sallyport init` makes the folder it
// runs from, `sallyport demo` shows it working on loopback; the other verbs
// are a client of its HTTP API. docs/cli.md lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker: -X main.version=…
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes of the contract.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is main without the process: arguments in, exit code out.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	parser, err := kong.New(&cli,
		kong.Name("sallyport"),
		kong.Description("Email security gateway: receives, queues and delivers mail for many tenants."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Vars{"regions": defaultRegions},
	)
	if err != nil {
		fmt.Fprintln(stderr, "sallyport:", err)
		return exitFailed
	}
	e := &env{ctx: ctx, flags: &cli.globals, stdin: stdin, stdout: stdout, stderr: stderr}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help has been printed
		return exited
	}
	if err != nil {
		// Where the parser stopped it may not have come to --json.
		e.flags.JSON = e.flags.JSON || slices.Contains(args, "--json")
		return e.fail(usage(err.Error(), "Type `"+helpFor(err)+"` to see what there is."))
	}
	if err := parsed.Run(e); err != nil {
		return e.fail(err)
	}
	return exitDone
}

// helpFor is the command that shows the help of the verb that was begun.
func helpFor(err error) string {
	words := []string{"sallyport"}
	var p *kong.ParseError
	if errors.As(err, &p) {
		for _, at := range p.Context.Path {
			if at.Command != nil {
				words = append(words, at.Command.Name)
			}
		}
	}
	return strings.Join(append(words, "--help"), " ")
}
