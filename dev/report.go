package main

import (
	"context"
	"fmt"

	"github.com/fleettracing/fleet-tracing/dev/report"
)

type reportCmd struct {
	Out string `short:"o" default:"report.pdf" help:"The file to write."`
}

func (cmd reportCmd) Run(ctx context.Context, root repository) error {
	if err := report.Render(ctx, string(root), report.Pages, cmd.Out); err != nil {
		return err
	}
	fmt.Println("report in", cmd.Out)
	return nil
}
