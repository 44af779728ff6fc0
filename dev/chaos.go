package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/chaos"
)

type chaosCmd struct {
	Only []string `placeholder:"NAME,…" help:"Inject only these faults; --list shows all names."`
	Seed uint64   `default:"1" help:"Seed of the random choices."`
	List bool     `help:"List the faults, and inject nothing."`
}

const (
	chaosWithin = 25 * time.Minute
	smallDisk   = 768 << 20 // bytes of the file system of node 4
)

// Run injects faults on its own cluster, which it removes afterwards. A cluster that is already up is used and left as it is.
func (cmd chaosCmd) Run(ctx context.Context, s *settings, root repository) (err error) {
	if cmd.List {
		fmt.Println(strings.Join(chaos.Names(), "\n"))
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, chaosWithin)
	defer cancel()
	if s.Dir == "" {
		s.Dir = root.path(".dev", "chaos", "cluster")
	}
	c, err := s.open(os.Stdout)
	if err != nil {
		return err
	}
	o := chaos.Options{
		Cluster: c, Root: string(root), Dir: root.path(".dev", "chaos", "run"), Keyspace: "fleet_iot", Only: cmd.Only, Seed: cmd.Seed, Out: os.Stdout,
	}
	runs, err := c.Runs()
	if err != nil {
		return err
	}
	var cleanups []func() error
	defer func() {
		for _, do := range slices.Backward(cleanups) {
			err = errors.Join(err, do())
		}
	}()
	if !runs {
		if err := prepare(ctx, s, &o, func(do func() error) { cleanups = append(cleanups, do) }); err != nil {
			return err
		}
	}
	return chaos.Run(ctx, o)
}

// prepare gives the stopped cluster its own networks and a small disk, if this process may create them, and sets them in o. Faults
// that need a missing one are skipped. atEnd registers functions that remove the cluster and everything else.
func prepare(ctx context.Context, s *settings, o *chaos.Options, atEnd func(func() error)) error {
	if err := o.Cluster.Down(ctx, true); err != nil { // left over from an earlier run, maybe with other addresses
		return err
	}
	nodes, err := o.Cluster.Nodes()
	if err != nil {
		return err
	}
	if chaos.CanTunnel() == nil {
		if o.Tunnel, err = chaos.OpenTunnel(nodes[0].CQLPort); err != nil {
			return err
		}
		atEnd(o.Tunnel.Close)
		s.Places = chaos.Places
		if o.Cluster, err = s.open(os.Stdout); err != nil {
			return err
		}
		if nodes, err = o.Cluster.Nodes(); err != nil {
			return err
		}
	}
	disk, unmount, err := chaos.MountSmall(nodes, smallDisk)
	if err != nil {
		return err
	}
	o.Disk = disk
	atEnd(func() (err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		for _, n := range nodes {
			err = errors.Join(err, o.Cluster.Kill(ctx, n.N))
		}
		return errors.Join(err, unmount(), o.Cluster.Down(ctx, true))
	})
	return nil
}
