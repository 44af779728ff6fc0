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
	"github.com/fleettracing/fleet-tracing/dev/kafka"
)

type withClusterCmd struct {
	Command []string `arg:"" passthrough:"" help:"The command, after --. CASSANDRA_TEST_HOSTS has the addresses of the nodes."`
}

func (cmd withClusterCmd) Run(ctx context.Context, s *settings) error {
	c, err := s.open(os.Stderr)
	if err != nil {
		return err
	}
	return whileUp(ctx, c, func() error {
		nodes, err := c.Nodes()
		if err != nil {
			return err
		}
		return runCommand(ctx, cmd.Command, "CASSANDRA_TEST_HOSTS="+strings.Join(cluster.ContactPoints(nodes), ","))
	})
}

type withKafkaCmd struct {
	Command []string `arg:"" passthrough:"" help:"The command, after --. KAFKA_TEST_BROKERS has the address of the broker."`
}

func (cmd withKafkaCmd) Run(ctx context.Context) error {
	b, err := kafka.Open(os.Stderr)
	if err != nil {
		return err
	}
	return whileUp(ctx, b, func() error { return runCommand(ctx, cmd.Command, "KAFKA_TEST_BROKERS="+b.Address()) })
}

// server is a cluster or a broker.
type server interface {
	Runs() (bool, error)
	Up(ctx context.Context) error
	Down(ctx context.Context, remove bool) error
}

// whileUp starts a server unless it runs, calls do, and stops the server that it started.
func whileUp(ctx context.Context, s server, do func() error) (err error) {
	ran, err := s.Runs()
	if err != nil {
		return err
	}
	if err := s.Up(ctx); err != nil {
		return err
	}
	if !ran {
		defer func() { err = errors.Join(err, s.Down(context.WithoutCancel(ctx), false)) }()
	}
	return do()
}

// runCommand runs the command after -- with one more environment variable. If ctx ends, the command receives SIGTERM.
func runCommand(ctx context.Context, command []string, variable string) error {
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return errors.New("no command to run: give one after --")
	}
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
