package main

import (
	"context"
	"os"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/demo"
)

type demoCmd struct{ dcsFlag }

func (cmd demoCmd) Run(ctx context.Context, s *settings, root repository) error {
	c, err := s.open(cmd.DCs, os.Stdout)
	if err != nil {
		return err
	}
	return demo.New(string(root), c, os.Stdout).Run(ctx)
}

type demoDownCmd struct{}

func (demoDownCmd) Run(ctx context.Context, c *cluster.Cluster, root repository) error {
	return demo.New(string(root), c, os.Stdout).Down(ctx)
}
