package app

import (
	"fmt"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type tokenCommand struct {
	Fleet  string `arg:"" help:"Fleet of the token; * is all fleets."`
	Rights string `enum:"write,read,both" default:"write" help:"Rights of the token: write, read, or both."`
}

// Run makes a token and prints it. Nothing stores the token: the token file contains only its hash.
func (c *tokenCommand) Run(p *program) error {
	if c.Fleet != auth.AllFleets && !telemetry.ValidName(c.Fleet) {
		return fmt.Errorf("fleet %q: use 1 to 128 characters of A-Za-z0-9._:-, or * for all fleets", c.Fleet)
	}
	rights := c.Rights
	if rights == "both" {
		rights = "read,write"
	}
	token, hash := auth.NewToken()
	fmt.Fprintf(p.Err, "Token (it cannot be shown again):\n")
	fmt.Fprintln(p.Out, token)
	fmt.Fprintf(p.Err, "Line for the file ETL_API_TOKENS_FILE:\n%s %s %s\n", c.Fleet, hash, rights)
	return nil
}
