package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/report"
)

type reportCmd struct {
	Out string `short:"o" default:"report.pdf" help:"The file to write."`
}

func (cmd reportCmd) Run(ctx context.Context, root repository) error {
	version := "unknown"
	if out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		version = strings.TrimSpace(string(out))
	}
	err := report.Render(ctx, report.Options{
		Root: string(root), Work: root.path(".dev", "report"), Out: cmd.Out, Version: version,
		Date: time.Now().UTC().Format("2 January 2006"),
	})
	if err != nil {
		return err
	}
	fmt.Println("report in", cmd.Out)
	return nil
}
