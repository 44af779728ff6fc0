package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/chaos"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type chaosCmd struct {
	Only     []string      `placeholder:"NAME,…" help:"These faults alone; --list names all."`
	Seed     uint64        `default:"1" help:"Seed of what is left to chance."`
	JSON     string        `name:"json" placeholder:"FILE" help:"Write what came of each fault there."`
	Markdown []string      `placeholder:"FILE,…" help:"Inject nothing: print the tables of docs/resilience.md from such files."`
	List     bool          `help:"Inject nothing: name the faults."`
	GoOn     bool          `help:"Go on after a fault that was not withstood."`
	Within   time.Duration `default:"20m" help:"Time that all of it may take."`
	Inside   bool          `hidden:"" help:"It is in the network of the first data centre."`
}

// smallDisk is the size of the file system that node 4 has to itself, in bytes.
const smallDisk = 768 << 20

// Run breaks a platform on a cluster of its own, which is removed afterwards. A cluster that is up already is taken as it is, and left.
func (cmd chaosCmd) Run(ctx context.Context, s *settings) (err error) {
	switch {
	case cmd.List:
		for _, name := range chaos.Names() {
			fmt.Println(name)
		}
		return nil
	case len(cmd.Markdown) > 0:
		return chaos.Markdown(os.Stdout, cmd.Markdown...)
	}
	ctx, cancel := context.WithTimeout(ctx, cmd.Within)
	defer cancel()
	root, err := cluster.RepositoryRoot()
	if err != nil {
		return err
	}
	home := filepath.Join(root, ".dev", "chaos")
	if s.Dir == "" {
		s.Dir = filepath.Join(home, "cluster")
	}
	c, err := s.open(nil, os.Stdout)
	if err != nil {
		return err
	}
	o := chaos.Options{
		Cluster: c, Root: root, Dir: filepath.Join(home, "run"), Keyspace: "fleet_iot", Only: cmd.Only, GoOn: cmd.GoOn, Seed: cmd.Seed, Out: os.Stdout,
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	if !anyRuns(nodes) {
		stop, e := cmd.own(ctx, s, c, &o)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err := o.Cluster.Up(ctx); err != nil {
		return err
	}
	report, err := chaos.Run(ctx, o)
	if cmd.JSON != "" {
		text, e := json.MarshalIndent(report, "", "  ")
		if e == nil {
			e = os.WriteFile(cmd.JSON, append(text, '\n'), 0o644)
		}
		err = errors.Join(err, e)
	}
	return err
}

// own makes of the cluster, none of whose nodes runs, one that is removed by stop, on networks and with a disk of its own where that
// can be. What can't be stays as it is in o, and the faults that need it say so.
func (cmd chaosCmd) own(ctx context.Context, s *settings, c *cluster.Cluster, o *chaos.Options) (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, stop := range slices.Backward(stops) {
			errs = append(errs, stop())
		}
		return errors.Join(errs...)
	}
	if err := c.Down(ctx, true); err != nil { // what an earlier one has left, which may have been elsewhere
		return nil, err
	}
	if chaos.CanTunnel() == nil {
		if !cmd.Inside {
			// From inside nothing can be fetched.
			build := exec.CommandContext(ctx, "go", "build", "-o", os.DevNull, "./etl")
			build.Dir, build.Stderr = o.Root, os.Stderr
			if err := errors.Join(c.Fetch(ctx), build.Run()); err != nil {
				return nil, err
			}
			return nil, chaos.EnterNetwork("--inside")
		}
		stops = append(stops, chaos.RemoveNetworks)
		tunnel, err := chaos.OpenTunnel()
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		stops = append(stops, tunnel.Close)
		o.Link = tunnel
		if o.Cluster, err = s.open(nil, os.Stdout, chaos.Places...); err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	nodes, err := o.Cluster.Nodes()
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	disk, unmount, err := chaos.MountSmall(nodes[len(nodes)-1], smallDisk)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	o.Disk = disk
	stops = append(stops, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		var errs []error
		for _, n := range nodes {
			errs = append(errs, o.Cluster.Kill(ctx, n.N))
		}
		return errors.Join(errors.Join(errs...), unmount(), o.Cluster.Down(ctx, true))
	})
	return stop, nil
}
