package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/kafka"
)

type kafkaCmd struct {
	Up     kafkaUpCmd     `cmd:"" help:"Start the broker unless it runs, wait until it serves, and make the topics. Fetches Kafka the first time."`
	Down   kafkaDownCmd   `cmd:"" help:"Stop the broker."`
	Status kafkaStatusCmd `cmd:"" help:"Print whether it serves, and its topics. Exit status 1 unless it does."`
	Kill   kafkaKillCmd   `cmd:"" help:"Kill it (SIGKILL), as a crash does."`
	Logs   kafkaLogsCmd   `cmd:"" help:"Print the end of its log."`
}

// openKafka takes the settings from DEV_KAFKA_DIR, DEV_KAFKA_PORT and DEV_KAFKA_HEAP.
func openKafka(out *os.File) (*kafka.Broker, error) {
	cfg, err := kafka.DefaultConfig()
	if err != nil {
		return nil, err
	}
	cfg.Out = out
	return kafka.Open(cfg)
}

type kafkaUpCmd struct {
	Topics map[string]int `name:"topic" default:"telemetry=6;telemetry-dead-letters=1" placeholder:"NAME=PARTITIONS;…" help:"Topics to make where they are missing."`
}

func (cmd kafkaUpCmd) Run(ctx context.Context) error {
	b, err := openKafka(os.Stdout)
	if err != nil {
		return err
	}
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
	Delete bool `help:"Remove the data, too."`
}

func (cmd kafkaDownCmd) Run(ctx context.Context) error {
	b, err := openKafka(os.Stdout)
	if err != nil {
		return err
	}
	return b.Down(ctx, cmd.Delete)
}

type kafkaStatusCmd struct{}

func (kafkaStatusCmd) Run(ctx context.Context) error {
	b, err := openKafka(os.Stdout)
	if err != nil {
		return err
	}
	serves, err := b.Status(ctx)
	if err == nil && !serves {
		err = errors.New("kafka is not up")
	}
	return err
}

type kafkaKillCmd struct{}

func (kafkaKillCmd) Run(ctx context.Context) error {
	b, err := openKafka(os.Stdout)
	if err != nil {
		return err
	}
	return b.Kill(ctx)
}

type kafkaLogsCmd struct {
	Follow bool `short:"f" help:"Go on with what is added."`
	Lines  int  `short:"n" default:"100" help:"How many lines to begin with."`
}

func (cmd kafkaLogsCmd) Run(ctx context.Context) error {
	b, err := openKafka(os.Stdout)
	if err != nil {
		return err
	}
	return b.Logs(ctx, os.Stdout, cmd.Lines, cmd.Follow)
}

type withKafkaCmd struct {
	Command []string `arg:"" passthrough:"" help:"The command, after --. It finds the broker in KAFKA_TEST_BROKERS."`
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
