package main

import (
	"context"
	"os"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/demo"
)

type demoCmd struct{}

func (demoCmd) Run(ctx context.Context, c *cluster.Cluster, root repository) error {
	return demo.New(string(root), c, os.Stdout).Run(ctx)
}

type demoDownCmd struct{}

func (demoDownCmd) Run(ctx context.Context, c *cluster.Cluster, root repository) error {
	return demo.New(string(root), c, os.Stdout).Down(ctx)
}
