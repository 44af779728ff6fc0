package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type runCommand struct{}

// Run ingests until the process is asked to stop, then stores what it received.
func (runCommand) Run(p *program) error {
	a, err := New(p.config, p.logger, p.reg)
	if err != nil {
		return err
	}
	p.logger.WithField("sources", p.config.Sources).Info("running")
	return p.runApp(a)
}

// runApp runs an App until it ends or the process is asked to stop. Then the App has ETL_DRAIN_TIMEOUT to store what it
// received; the second request to stop aborts it.
func (p *program) runApp(a *App) error {
	a.Start()
	select {
	case <-a.Done():
	case <-p.stop.Done():
		p.logger.WithField("timeout", p.config.DrainTimeout.String()).Info("stopping, storing received records")
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.config.DrainTimeout)
	defer cancel()
	return a.Stop(ctx)
}

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

type configCommand struct{}

// Run implements the command.
func (configCommand) Run(p *program) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VARIABLE\tVALUE\tDEFAULT\tDESCRIPTION")
	for _, s := range p.config.Settings() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Variable, cmp.Or(s.Value, "-"), cmp.Or(s.Default, "-"), s.Description)
	}
	return w.Flush()
}

type healthCommand struct{}

// Run implements the command. It serves containers that have no curl.
func (healthCommand) Run(p *program) error {
	host, port, err := net.SplitHostPort(p.config.MetricsAddress)
	if err != nil {
		return fmt.Errorf("ETL_METRICS_ADDRESS %q: set it; without it, readiness can't be checked", p.config.MetricsAddress)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/-/ready", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return err
	}
	status := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return errors.New("not ready: " + status)
	}
	fmt.Fprintln(p.Out, status)
	return nil
}
