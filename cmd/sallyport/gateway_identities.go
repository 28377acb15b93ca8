package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// checkIdentities says which certificates of connections are late, and which
// changes wait for somebody.
func (g *gateway) checkIdentities(ctx context.Context) (bool, string, string) {
	const fix = "See what each waits for, and do it: sallyport connection replace TENANT NAME --status."
	if late := g.connections.Late(); len(late) > 0 {
		return false, "should have been renewed: " + some(late), fix
	}
	waiting, err := g.connections.Pending(ctx)
	if err != nil {
		return false, "cannot be looked at: " + fault.Sentence(err), "Look at the database."
	}
	if len(waiting) > 0 {
		return false, "replacements that wait: " + some(waiting), fix
	}
	text := "renewed in time"
	// A keeper that is away is another line's.
	if purposes, err := g.connections.Purposes(ctx); err == nil && len(purposes) > 0 {
		text += "; certificates shown " + strings.Join(purposes, "; ")
	}
	return true, text + g.publicWords(), ""
}

// publicWords reminds of what the built-in authority is not: Exchange Online
// takes certificates of public authorities alone.
func (g *gateway) publicWords() string {
	n := 0
	for _, c := range g.connections.List("") {
		if c.Kind == connection.KindM365 && !connection.OutsideMicrosoft(c) {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d connections to Microsoft 365 need certificates of a public authority (ACME): the built-in one is not known there", n)
}
