package app

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
)

type runCommand struct{}

// Run streams until the process is asked to stop, then stores what it received.
func (runCommand) Run(p *program) error {
	x, err := p.wire(p.config.Linger, p.config.Sources)
	if err != nil {
		return err
	}
	defer x.close()
	sources, made, err := p.sources(x)
	defer func() {
		if err := made.close(); err != nil {
			p.logger.WithError(err).Error("closing a source failed")
		}
	}()
	if err != nil {
		return err
	}
	coordinator := reload.New(x.reloadTargets(), p.config.ReloadInterval, p.logger, p.reg, time.Now)
	reloading, stopReloads := context.WithCancel(p.ctx)
	reloaded := make(chan struct{})
	go func() { defer close(reloaded); coordinator.Run(reloading) }()
	defer func() { stopReloads(); <-reloaded }()
	end, err := p.serve(x.connector.Ready, coordinator.Reload)
	if err != nil {
		return err
	}
	defer end()
	p.logger.WithFields(logrus.Fields{"sources": p.config.Sources}).Info("running")

	ctx, cancel := p.drain(p.config.DrainTimeout)
	defer cancel()
	err = p.stream(ctx, x, sources)
	s := x.pipeline.Summary()
	fields := logrus.Fields{"received": s.Received, "stored": s.Stored, "duplicates": s.Duplicates, "rejected": total(s.Rejected)}
	if _, connected := x.connector.Get(); err != nil && !connected && p.stop.Err() != nil {
		p.logger.WithFields(fields).Info("shutdown before cassandra was reached")
		return nil
	}
	if err != nil {
		p.logger.WithFields(fields).Error("shutdown with unstored records; their sources send them again")
		return err
	}
	p.logger.WithFields(fields).Info("shutdown complete; all received records are stored")
	return nil
}
