package app

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/canary"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
)

// closers ends what sources are made of, the newest first.
type closers []func() error

func (c closers) close() error {
	var failed []error
	for i := len(c) - 1; i >= 0; i-- {
		failed = append(failed, c[i]())
	}
	return errors.Join(failed...)
}

// sources makes those of ETL_SOURCES. What they are made of is to be closed when the pipeline has ended, also after an
// error.
func (p *program) sources(x *parts) (sources []pipeline.Source, made closers, err error) {
	for _, name := range p.config.Sources {
		var s pipeline.Source
		var end closers
		switch name {
		case "generator":
			s, err = p.generator()
		case "api":
			s, end, err = p.api(x)
		case "kafka":
			s, err = p.kafka()
		default:
			err = fmt.Errorf("ETL_SOURCES %q: no such source", name)
		}
		made = append(made, end...)
		if err != nil {
			return nil, made, err
		}
		sources = append(sources, s)
	}
	if p.config.CanaryInterval > 0 {
		s, err := p.canary(x)
		if err != nil {
			return nil, made, fmt.Errorf("canary: %w", err)
		}
		sources = append(sources, s)
	}
	return sources, made, nil
}

// fleets are those that may send, our own among them; none is any.
func (p *program) fleets() []string {
	if len(p.config.Fleets) == 0 {
		return nil
	}
	return append(slices.Clone(p.config.Fleets), canary.Fleet)
}

// canary is the vehicle of our own. Each process has its own, which the directory of its state tells apart on one host.
func (p *program) canary(x *parts) (pipeline.Source, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	dir, err := filepath.Abs(p.config.StateDir)
	if err != nil {
		return nil, err
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir)) // a hash takes everything
	device := canary.DeviceOf(fmt.Sprintf("%s-%x", host, h.Sum32()))
	return canary.New(canary.Options{Interval: p.config.CanaryInterval, Device: device}, func(ctx context.Context, deviceID string, tsMs int64) (bool, error) {
		store := x.store.Load()
		if store == nil {
			return false, errNotReached
		}
		ts := time.UnixMilli(tsMs)
		found, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: deviceID, From: ts, To: ts})
		return len(found.Rows) > 0, err
	}, p.logger, p.reg, time.Now)
}

func (p *program) generator() (pipeline.Source, error) {
	c := p.config
	return generator.NewSource(generator.SourceOptions{Pace: true, Options: generator.Options{
		Seed: c.GeneratorSeed, Vehicles: c.GeneratorVehicles, Fleets: c.GeneratorFleets, Interval: c.GeneratorInterval,
		Late: c.GeneratorLate, Duplicate: c.GeneratorDuplicate, Broken: c.GeneratorBroken,
	}})
}

func (p *program) kafka() (pipeline.Source, error) {
	c := p.config
	connection, err := kafkaConnection(c)
	if err != nil {
		return nil, err
	}
	s, err := kafka.New(kafka.Options{
		Connection: connection, Topics: c.KafkaTopics, Group: c.KafkaGroup, Start: c.KafkaStart,
		BatchRecords: c.KafkaBatchRecords, FetchMaxBytes: c.KafkaFetchMaxBytes, CommitInterval: c.KafkaCommitInterval,
		RevokeWait: c.KafkaRevokeWait, SessionTimeout: c.KafkaSessionTimeout,
		DrainWait: max(c.DrainTimeout-2*time.Second, time.Second), // so that its commit still goes out
		Logger:    p.logger, Registerer: p.reg,
	})
	if err != nil {
		return nil, fmt.Errorf("KAFKA_…: %w", err)
	}
	return s, nil
}
