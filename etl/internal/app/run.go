package app

import (
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
)

type runCommand struct{}

// Run streams until told to stop, then stores what was taken in.
func (runCommand) Run(p *program) error {
	sources, err := p.sources()
	if err != nil {
		return err
	}
	x := p.wire(p.config.Linger)
	defer x.close()
	end, err := p.serve(x.ready)
	if err != nil {
		return err
	}
	defer end()
	p.logger.WithFields(logrus.Fields{"sources": p.config.Sources}).Info("running")

	ctx, cancel := p.drain(p.config.DrainTimeout)
	defer cancel()
	err = x.pipeline.Run(ctx, p.stop, sources...)
	s := x.pipeline.Metrics.Summary()
	fields := logrus.Fields{"received": s.Received, "stored": s.Stored, "duplicates": s.Duplicates, "rejected": total(s.Rejected)}
	if err != nil && x.store.Load() == nil && p.stop.Err() != nil {
		p.logger.WithFields(fields).Info("ended before cassandra was reached")
		return nil
	}
	if err != nil {
		p.logger.WithFields(fields).Error("ended before everything was stored")
		return err
	}
	p.logger.WithFields(fields).Info("ended; everything that was taken in is stored")
	return nil
}

// sources makes those of ETL_SOURCES.
func (p *program) sources() ([]pipeline.Source, error) {
	c := p.config
	var sources []pipeline.Source
	for _, name := range c.Sources {
		switch name {
		case "generator":
			s, err := generator.NewSource(generator.SourceOptions{Pace: true, Options: generator.Options{
				Seed: c.GeneratorSeed, Vehicles: c.GeneratorVehicles, Fleets: c.GeneratorFleets, Interval: c.GeneratorInterval,
				Late: c.GeneratorLate, Duplicate: c.GeneratorDuplicate, Broken: c.GeneratorBroken,
			}})
			if err != nil {
				return nil, err
			}
			sources = append(sources, s)
		default:
			return nil, fmt.Errorf("ETL_SOURCES %q: no such source", name)
		}
	}
	return sources, nil
}
