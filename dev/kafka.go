package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/kafka"
)

type kafkaCmd struct {
	Up     kafkaUpCmd     `cmd:"" help:"Start the broker unless it runs, wait until it serves, and create the topics. Downloads Kafka the first time."`
	Down   kafkaDownCmd   `cmd:"" help:"Stop the broker."`
	Status kafkaStatusCmd `cmd:"" help:"Print the state of the broker and its topics. The exit status is 1 unless it serves."`
	Kill   kafkaKillCmd   `cmd:"" help:"Kill the broker (SIGKILL)."`
	Logs   kafkaLogsCmd   `cmd:"" help:"Print the end of the log."`
}

// openKafka opens the broker of DEV_KAFKA_DIR, DEV_KAFKA_PORT and DEV_KAFKA_HEAP.
func openKafka(out io.Writer) (*kafka.Broker, error) {
	cfg, err := kafka.DefaultConfig()
	if err != nil {
		return nil, err
	}
	cfg.Out = out
	return kafka.Open(cfg)
}

type kafkaUpCmd struct {
	Topics map[string]int `name:"topic" default:"telemetry=6;telemetry-dead-letters=1" placeholder:"NAME=PARTITIONS;…" help:"Topics to create if they are missing."`
}

func (cmd kafkaUpCmd) Run(ctx context.Context, b *kafka.Broker) error {
	if err := b.Up(ctx); err != nil {
		return err
	}
	for topic, partitions := range cmd.Topics {
		if err := b.CreateTopic(ctx, topic, partitions); err != nil {
			return err
		}
	}
	return nil
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

type kafkaLogsCmd struct {
	Follow bool `short:"f" help:"Print new lines until Ctrl-C."`
	Lines  int  `short:"n" default:"100" help:"Number of lines."`
}

func (cmd kafkaLogsCmd) Run(ctx context.Context, b *kafka.Broker) error {
	return b.Logs(ctx, os.Stdout, cmd.Lines, cmd.Follow)
}

type withKafkaCmd struct {
	Command []string `arg:"" passthrough:"" help:"The command, after --. KAFKA_TEST_BROKERS has the address of the broker."`
}

func (cmd withKafkaCmd) Run(ctx context.Context) error {
	command, err := afterDashes(cmd.Command)
	if err != nil {
		return err
	}
	b, err := openKafka(os.Stderr)
	if err != nil {
		return err
	}
	before, err := b.PID()
	if err != nil {
		return err
	}
	if err := b.Up(ctx); err != nil {
		return err
	}
	err = runCommand(ctx, command, "KAFKA_TEST_BROKERS="+b.Address())
	if before == 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, b.Down(ctx, false))
	}
	return err
}
