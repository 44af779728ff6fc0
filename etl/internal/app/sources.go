package app

import (
	"context"
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

// addSources creates the sources of ETL_SOURCES, and the canary.
func (a *App) addSources() error {
	for _, name := range a.config.Sources {
		var s pipeline.Source
		var err error
		switch name {
		case "generator":
			s, err = a.generator()
		case "api":
			s, err = a.api()
		case "kafka":
			s, err = a.kafka()
		default:
			err = fmt.Errorf("ETL_SOURCES %q: unknown source; use generator, api or kafka", name)
		}
		if err != nil {
			return err
		}
		a.sources = append(a.sources, s)
	}
	if a.config.CanaryInterval > 0 {
		s, err := a.canary()
		if err != nil {
			return err
		}
		a.sources = append(a.sources, s)
	}
	return nil
}

// fleets returns the fleets that may send, the canary's included. Without any, all may send.
func (p *program) fleets() []string {
	if len(p.config.Fleets) == 0 {
		return nil
	}
	return append(slices.Clone(p.config.Fleets), canary.Fleet)
}

// canary creates the synthetic vehicle. Its name differs between processes: by host, and by state directory on one host.
func (a *App) canary() (pipeline.Source, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	dir, err := filepath.Abs(a.config.StateDir)
	if err != nil {
		return nil, err
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir)) // a hash accepts everything
	o := canary.Options{Interval: a.config.CanaryInterval, Timeout: 30 * time.Second, Device: canary.DeviceOf(fmt.Sprintf("%s-%x", host, h.Sum32()))}
	return canary.New(o, func(ctx context.Context, deviceID string, tsMs int64) (bool, error) {
		store, ok := a.connector.Get()
		if !ok {
			return false, cassandra.ErrNotConnected
		}
		ts := time.UnixMilli(tsMs)
		found, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: deviceID, From: ts, To: ts})
		return len(found) > 0, err
	}, a.logger, a.reg, time.Now), nil
}

func (p *program) generator() (pipeline.Source, error) {
	c := p.config
	return generator.NewSource(generator.Options{
		Seed: c.GeneratorSeed, Vehicles: c.GeneratorVehicles, Fleets: c.GeneratorFleets, Interval: c.GeneratorInterval,
		Late: c.GeneratorLate, Duplicate: c.GeneratorDuplicate, Broken: c.GeneratorBroken,
	})
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
		DrainWait: max(c.DrainTimeout-2*time.Second, time.Second), // leaves time for the last commit
		Logger:    p.logger, Registerer: p.reg, Now: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("KAFKA_…: %w", err)
	}
	return s, nil
}
