package app

import (
	"github.com/sirupsen/logrus"
)

type runCommand struct{}

// Run streams until told to stop, then stores what was taken in.
func (runCommand) Run(p *program) error {
	x, err := p.wire(p.config.Linger, p.config.Sources)
	if err != nil {
		return err
	}
	defer x.close()
	sources, made, err := p.sources(x)
	defer func() {
		if err := made.close(); err != nil {
			p.logger.WithError(err).Error("a source did not close in good order")
		}
	}()
	if err != nil {
		return err
	}
	end, err := p.serve(x.ready)
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
