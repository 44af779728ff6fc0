package app

import (
	"fmt"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type tokenCommand struct {
	Fleet  string `arg:"" help:"Fleet that the token is for; * is every one."`
	Rights string `enum:"write,read,both" default:"write" help:"What it may do: write, read, or both."`
}

// Run makes a token. It is shown this once: the file holds only its hash.
func (c *tokenCommand) Run(p *program) error {
	if c.Fleet != ingest.AllFleets && !telemetry.ValidName(c.Fleet) {
		return fmt.Errorf("fleet %q: use 1 to 128 characters of A-Za-z0-9._:-, or * for every fleet", c.Fleet)
	}
	rights := c.Rights
	if rights == "both" {
		rights = "read,write"
	}
	token, hash := ingest.NewToken()
	fmt.Fprintf(p.Err, "The token, shown this once:\n")
	fmt.Fprintln(p.Out, token)
	fmt.Fprintf(p.Err, "Its line for the file of ETL_HTTP_TOKENS_FILE:\n%s %s %s\n", c.Fleet, hash, rights)
	return nil
}
