package main

import (
	"context"
	"errors"

	"github.com/fleettracing/fleet-tracing/dev/kafka"
)

type kafkaCmd struct {
	Up     kafkaUpCmd     `cmd:"" help:"Start the broker unless it runs, wait until it serves, and create the topics. Downloads Kafka the first time."`
	Down   kafkaDownCmd   `cmd:"" help:"Stop the broker."`
	Status kafkaStatusCmd `cmd:"" help:"Print the state of the broker and its topics. The exit status is 1 unless it serves."`
	Kill   kafkaKillCmd   `cmd:"" help:"Kill the broker (SIGKILL)."`
}

type kafkaUpCmd struct{}

func (kafkaUpCmd) Run(ctx context.Context, b *kafka.Broker) error {
	if err := b.Up(ctx); err != nil {
		return err
	}
	return errors.Join(b.CreateTopic(ctx, "telemetry", 6), b.CreateTopic(ctx, "telemetry-dead-letters", 1))
}

type kafkaDownCmd struct {
	Delete bool `help:"Also remove the data."`
}

func (cmd kafkaDownCmd) Run(ctx context.Context, b *kafka.Broker) error {
	return b.Down(ctx, cmd.Delete)
}

type kafkaStatusCmd struct{}

func (kafkaStatusCmd) Run(ctx context.Context, b *kafka.Broker) error {
	serves, err := b.Status(ctx)
	if err == nil && !serves {
		err = errors.New("kafka is not up")
	}
	return err
}

type kafkaKillCmd struct{}

func (kafkaKillCmd) Run(ctx context.Context, b *kafka.Broker) error { return b.Kill(ctx) }
