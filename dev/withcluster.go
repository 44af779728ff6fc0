package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
)

type withClusterCmd struct {
	DCs     string   `name:"dcs" placeholder:"NAME=NODES,…" help:"Data centres and their nodes (default dc1=2,dc2=2)."`
	Command []string `arg:"" passthrough:"" help:"The command, after --. It finds the nodes in CASSANDRA_TEST_HOSTS and the directory in DEV_CLUSTER_DIR."`
}

func (cmd withClusterCmd) Run(ctx context.Context, s *settings) error {
	var dcs []cluster.DC
	if cmd.DCs != "" {
		var err error
		if dcs, err = cluster.ParseDCs(cmd.DCs); err != nil {
			return err
		}
	}
	c, err := s.open(dcs, os.Stderr)
	if err != nil {
		return err
	}
	before, err := c.Nodes()
	if err != nil {
		return err
	}
	if err := c.Up(ctx); err != nil {
		return err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	var hosts []string
	for _, n := range nodes {
		hosts = append(hosts, n.CQL().String())
	}
	command := cmd.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return errors.New("no command to run: give one after --")
	}
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.Env = append(os.Environ(), "CASSANDRA_TEST_HOSTS="+strings.Join(hosts, ","))
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = 30 * time.Second
	err = child.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	if !anyRuns(before) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, c.Down(ctx, false))
	}
	return err
}

func anyRuns(nodes []cluster.Node) bool {
	for _, n := range nodes {
		if n.PID != 0 {
			return true
		}
	}
	return false
}
