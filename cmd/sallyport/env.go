package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/api/client"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// env is what a verb runs with.
type env struct {
	ctx            context.Context
	flags          *globals
	stdin          io.Reader
	stdout, stderr io.Writer
}

// client finds the API as the contract says: SALLYPORT_API and
// SALLYPORT_TOKEN, or the flags, and what is missing from the data folder.
func (e *env) client() (*client.Client, error) {
	base, err := e.address()
	if err != nil {
		return nil, err
	}
	token := os.Getenv("SALLYPORT_TOKEN")
	if e.flags.TokenFile != "" {
		t, err := os.ReadFile(e.flags.TokenFile)
		if err != nil {
			return nil, fault.New(fault.Invalid, "token", "cannot read the token: "+err.Error()).
				WithHint("Give --token-file a file with an API token, such as operator.token of the gateway's folder.")
		}
		token = strings.TrimSpace(string(t))
	}
	if token == "" {
		t, err := os.ReadFile(filepath.Join(e.flags.Data, tokenName))
		if err != nil {
			return nil, fault.New(fault.Invalid, "token", "there is no API token").
				WithHint("Name the gateway's folder with --data DIR, or a token with --token-file FILE.")
		}
		token = strings.TrimSpace(string(t))
	}
	return &client.Client{Base: base, Token: token}, nil
}

// address is where the API is.
func (e *env) address() (string, error) {
	base := e.flags.API
	if base == "" {
		c, err := loadConfig(e.flags.Data)
		if err != nil {
			return "", err
		}
		base = c.API.url()
	}
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return strings.TrimSuffix(base, "/"), nil
}

// call does one request and returns the answer as it came.
func (e *env) call(method, path string, query url.Values, in any) (json.RawMessage, error) {
	c, err := e.client()
	if err != nil {
		return nil, err
	}
	var out json.RawMessage
	err = c.Do(e.ctx, method, path, query, in, &out)
	return out, err
}

// show does one request and prints its answer: as JSON, or by the line that
// text makes of it.
func show[T any](e *env, method, path string, query url.Values, in any, text func(T) string) error {
	raw, err := e.call(method, path, query, in)
	if err != nil {
		return err
	}
	return printAs(e, raw, text)
}

// printAs shows one answer as JSON, or by the text made of it.
func printAs[T any](e *env, raw json.RawMessage, text func(T) string) error {
	if e.flags.JSON {
		return e.printJSON(raw)
	}
	var v T
	if len(raw) > 0 {
		if err := unmarshal(raw, &v); err != nil {
			return err
		}
	}
	fmt.Fprintln(e.stdout, strings.TrimRight(text(v), "\n"))
	return nil
}

// add does a POST that adds something. made is false when the same was there
// already and --if-absent let that pass.
func (e *env) add(path string, in any) (raw json.RawMessage, made bool, err error) {
	c, err := e.client()
	if err != nil {
		return nil, false, err
	}
	made, err = c.Add(e.ctx, path, in, &raw)
	return raw, made, err
}

// showAdded is show for what add adds: text is told whether it is new.
func showAdded[T any](e *env, path string, in any, text func(v T, made bool) string) error {
	raw, made, err := e.add(path, in)
	if err != nil {
		return err
	}
	return printAs(e, raw, func(v T) string { return text(v, made) })
}

// list prints a listing: one JSON array of all pages, or a table.
func list[T any](e *env, path string, query url.Values, head []string, row func(T) []string) error {
	return listUpTo(e, path, query, 0, head, row)
}

// listUpTo is list of at most limit items, 0 for all.
func listUpTo[T any](e *env, path string, query url.Values, limit int, head []string, row func(T) []string) error {
	c, err := e.client()
	if err != nil {
		return err
	}
	if e.flags.JSON {
		return e.listJSON(c, path, query, limit)
	}
	t := newTable(head)
	more, err := c.Some(e.ctx, path, query, limit, func(raw json.RawMessage) error {
		var v T
		if err := unmarshal(raw, &v); err != nil {
			return err
		}
		t.add(row(v))
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.write(e.stdout); err != nil {
		return err
	}
	return e.tellMore(more)
}

// tellMore says that a listing goes on behind its limit. It goes where no
// program reads a listing.
func (e *env) tellMore(more bool) error {
	if !more {
		return nil
	}
	_, err := fmt.Fprintln(e.stderr, "There are more: raise --limit, or leave it out.")
	return err
}

// listJSON prints the whole array or nothing: a page that fails leaves standard
// output empty, so that `list --json | jq` and `list --json > FILE` never get
// half a listing that looks like one. The price is that nothing is printed
// before the last page is there. How long it is does not matter to memory: the
// array waits in a spool.
func (e *env) listJSON(c *client.Client, path string, query url.Values, limit int) error {
	var array spool
	defer array.close()
	sep := "["
	more, err := c.Some(e.ctx, path, query, limit, func(raw json.RawMessage) error {
		_, err := fmt.Fprintf(&array, "%s\n  %s", sep, raw)
		sep = ","
		return err
	})
	if err != nil {
		return err
	}
	end := "\n]\n"
	if sep == "[" {
		end = "[]\n"
	}
	if _, err := io.WriteString(&array, end); err != nil {
		return err
	}
	if _, err := array.WriteTo(e.stdout); err != nil {
		return err
	}
	return e.tellMore(more)
}

// printJSON prints one object, indented.
func (e *env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetEscapeHTML(false) // addresses and Message-IDs have angle brackets
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// fail prints an error as the contract says and returns the exit code.
func (e *env) fail(err error) int {
	if errors.Is(err, errReported) {
		return exitFailed
	}
	var p *client.Problem
	if !errors.As(err, &p) {
		p = &client.Problem{Type: "urn:sallyport:problem:" + fault.KindOf(err).String(), Title: http.StatusText(statusOf(err)), Status: statusOf(err),
			Detail: fault.Sentence(err), Hint: fault.HintOf(err)}
	}
	if p.Status == http.StatusUnauthorized { // the API's hint is for who writes requests
		p.Hint = "Give a token that this gateway knows: --token-file FILE, or SALLYPORT_TOKEN; otherwise " + tokenName + " of the folder of --data is used."
	}
	if e.flags.JSON {
		enc := json.NewEncoder(e.stderr)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		_ = enc.Encode(p)
	} else {
		fmt.Fprintln(e.stderr, "sallyport:", strings.TrimSpace(p.Detail))
		for _, one := range p.Errors {
			fmt.Fprintln(e.stderr, " ", strings.TrimPrefix(one.Location+": "+one.Message, ": "))
		}
		if p.Hint != "" {
			fmt.Fprintln(e.stderr, p.Hint)
		}
	}
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitFailed
}

// errUsage marks a mistake in the words of the command line.
var errUsage = errors.New("usage")

// usage is a mistake in the command line: exit code 2.
func usage(text, hint string) error {
	return &fault.Error{Kind: fault.Invalid, Op: "", Err: usageError(text), Hint: hint}
}

type usageError string

func (u usageError) Error() string        { return string(u) }
func (u usageError) Is(target error) bool { return target == errUsage }

// statusOf is the HTTP status that a local failure would have had.
func statusOf(err error) int {
	switch fault.KindOf(err) {
	case fault.Invalid:
		return 400
	case fault.Denied:
		return 403
	case fault.Missing:
		return 404
	case fault.Conflict:
		return 409
	case fault.Later:
		return 503
	default:
		return 500
	}
}

// errReported ends a verb with code 1 when what it printed says why.
var errReported = errors.New("reported")

// unmarshal reads an answer of the API.
func unmarshal(raw json.RawMessage, v any) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("the gateway's answer is not understood: %w", err)
	}
	return nil
}

// sortedKeys lists a map's keys in order.
func sortedKeys(m map[string]any) []string {
	return slices.Sorted(maps.Keys(m))
}
