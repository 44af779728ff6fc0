package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/chaos"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type chaosCmd struct {
	Only     []string      `placeholder:"NAME,…" help:"Inject only these faults; --list shows all names."`
	Seed     uint64        `default:"1" help:"Seed of the random choices."`
	JSON     string        `name:"json" placeholder:"FILE" help:"Write the outcomes to this file."`
	Markdown []string      `placeholder:"FILE,…" help:"Print the tables of docs/resilience.md from files of --json, and inject nothing."`
	List     bool          `help:"List the faults, and inject nothing."`
	GoOn     bool          `help:"Continue after a failed fault."`
	Within   time.Duration `default:"20m" help:"Time limit of the run."`
}

// smallDisk is the size of the file system of node 4, in bytes.
const smallDisk = 768 << 20

// Run injects faults on its own cluster, which it removes afterwards. A cluster that is already up is used and left as it is.
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
		cleanup, e := prepare(ctx, s, c, &o)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, cleanup()) }()
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

// prepare gives the stopped cluster its own networks and a small disk, if this process may create them, and sets them in o. Faults
// that need a missing one are skipped. cleanup removes the cluster and everything else.
func prepare(ctx context.Context, s *settings, c *cluster.Cluster, o *chaos.Options) (cleanup func() error, err error) {
	var cleanups []func() error
	cleanup = func() error {
		var errs []error
		for _, do := range slices.Backward(cleanups) {
			errs = append(errs, do())
		}
		return errors.Join(errs...)
	}
	if err := c.Down(ctx, true); err != nil { // left over from an earlier run, maybe with other addresses
		return nil, err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return nil, err
	}
	if chaos.CanTunnel() == nil {
		if o.Tunnel, err = chaos.OpenTunnel(nodes[0].CQLPort); err != nil {
			return nil, err
		}
		cleanups = append(cleanups, o.Tunnel.Close)
		s.Places = chaos.Places
		if o.Cluster, err = s.open(nil, os.Stdout); err == nil {
			nodes, err = o.Cluster.Nodes()
		}
		if err != nil {
			return nil, errors.Join(err, cleanup())
		}
	}
	disk, unmount, err := chaos.MountSmall(nodes, smallDisk)
	if err != nil {
		return nil, errors.Join(err, cleanup())
	}
	o.Disk = disk
	cleanups = append(cleanups, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		var errs []error
		for _, n := range nodes {
			errs = append(errs, o.Cluster.Kill(ctx, n.N))
		}
		return errors.Join(errors.Join(errs...), unmount(), o.Cluster.Down(ctx, true))
	})
	return cleanup, nil
}
