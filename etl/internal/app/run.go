package app

import "context"

type runCommand struct{}

// Run ingests until the process is asked to stop, then stores what it received.
func (runCommand) Run(p *program) error {
	a, err := New(p.config, p.logger, p.reg)
	if err != nil {
		return err
	}
	a.Start()
	select {
	case <-a.Done():
	case <-p.stop.Done():
		p.logger.WithField("timeout", p.config.DrainTimeout.String()).Info("stopping, storing received records")
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.config.DrainTimeout)
	defer cancel()
	return a.Stop(ctx)
}
