package app

import "context"

type runCommand struct{}

// Run ingests until the process is asked to stop, then stores what it received.
func (runCommand) Run(p *program) error {
	a, err := New(p.config, p.logger, p.reg)
	if err != nil {
		return err
	}
	p.logger.WithField("sources", p.config.Sources).Info("running")
	return p.runApp(a)
}

// runApp runs an App until it ends or the process is asked to stop. Then the App has ETL_DRAIN_TIMEOUT to store what it
// received; the second request to stop aborts it.
func (p *program) runApp(a *App) error {
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
