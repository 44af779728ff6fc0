package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type withClusterCmd struct {
	DCs     dcsFlag  `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centers and their nodes (default dc1=2,dc2=2)."`
	Command []string `arg:"" passthrough:"" help:"The command, after --. CASSANDRA_TEST_HOSTS has the addresses of the nodes."`
}

func (cmd withClusterCmd) Run(ctx context.Context, s *settings) error {
	command, err := afterDashes(cmd.Command)
	if err != nil {
		return err
	}
	c, err := s.open(cluster.DCs(cmd.DCs), os.Stderr)
	if err != nil {
		return err
	}
	return whileUp(ctx, c, false, func(nodes []cluster.Node) error {
		return runCommand(ctx, command, "CASSANDRA_TEST_HOSTS="+strings.Join(contactPoints(nodes), ","))
	})
}

// whileUp starts the cluster unless it is up, calls do, and stops the cluster that it started, unless keep is set.
func whileUp(ctx context.Context, c *cluster.Cluster, keep bool, do func([]cluster.Node) error) (err error) {
	before, err := c.Nodes()
	if err != nil {
		return err
	}
	if err := c.Up(ctx); err != nil {
		return err
	}
	if !keep && !anyRuns(before) {
		defer func() { err = errors.Join(err, c.Down(context.WithoutCancel(ctx), false)) }()
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	return do(nodes)
}

// contactPoints returns the CQL addresses of the nodes, host:port.
func contactPoints(nodes []cluster.Node) []string {
	var hosts []string
	for _, n := range nodes {
		hosts = append(hosts, n.CQL().String())
	}
	return hosts
}

// afterDashes returns the command after --.
func afterDashes(command []string) ([]string, error) {
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return nil, errors.New("no command to run: give one after --")
	}
	return command, nil
}

// runCommand runs a command with one more environment variable. If ctx ends, the command receives SIGTERM.
func runCommand(ctx context.Context, command []string, variable string) error {
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.Env = append(os.Environ(), variable)
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = 30 * time.Second
	if err := child.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	return nil
}

func anyRuns(nodes []cluster.Node) bool {
	return slices.ContainsFunc(nodes, func(n cluster.Node) bool { return n.PID != 0 })
}
