package main

import (
	"context"
	"os"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/demo"
)

type demoCmd struct {
	DCs dcsFlag `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centers and their nodes (default dc1=2,dc2=2)."`
}

func (cmd demoCmd) Run(ctx context.Context, s *settings) error {
	d, err := newDemo(s, cmd.DCs)
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

type demoDownCmd struct{}

func (demoDownCmd) Run(ctx context.Context, s *settings) error {
	d, err := newDemo(s, nil)
	if err != nil {
		return err
	}
	return d.Down(ctx)
}

func newDemo(s *settings, dcs []cluster.DC) (*demo.Demo, error) {
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	c, err := s.open(dcs, os.Stdout)
	if err != nil {
		return nil, err
	}
	return demo.New(root, c, os.Stdout), nil
}
