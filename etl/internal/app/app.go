package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
)

// App ingests from the sources of the settings until it is stopped. Call New, Start and Stop in this order, each once.
//
//	HTTP API ─► spool ─┐
//	Kafka ─────────────┼─► validate ─► recordPath: store, derive (path.go) ─► Alertmanager, Kafka
//	generator, canary ─┘       └─► dead letters
//
//	SIGHUP, POST /-/reload, changed files ─► reload ─► rules, geofences, tokens, certificate
type App struct {
	*program
	parts       *parts
	sources     []pipeline.Source
	reloads     []reload.Target // files of the HTTP API
	coordinator *reload.Coordinator
	operations  *operationsServer // nil if disabled
	apiAddr     net.Addr          // nil without the HTTP API

	cleanups cleanups
	stopping atomic.Bool
	drain    context.CancelFunc // stops the sources
	abort    context.CancelFunc // stops everything at once
	ended    chan struct{}
	err      error // after ended is closed
}

// New wires an App: it reads the files of the settings and listens, but connects to nothing yet. An error names the
// setting. Metrics are registered with reg.
func New(c *config.Config, logger *logrus.Logger, reg *prometheus.Registry) (_ *App, err error) {
	a := &App{program: &program{config: c, logger: logger, reg: reg}, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.cleanups.run())
		}
	}()
	if a.parts, err = a.wire(c.Linger, c.Sources); err != nil {
		return nil, err
	}
	a.cleanups.add("pipeline", func() error { a.parts.close(); return nil })
	if err := a.addSources(); err != nil {
		return nil, err
	}
	if c.MetricsAddress != "" {
		o := operationsOptions{Address: c.MetricsAddress, Gatherer: reg, Ready: a.Ready, Pprof: c.Pprof}
		if c.ReloadEnabled {
			o.Reload = a.Reload
		}
		if a.operations, err = newOperationsServer(o, logger); err != nil {
			return nil, err
		}
	}
	rules := a.parts.rules.target(func(*ruleset) { a.parts.publisher.notify() })
	a.coordinator = reload.New(append(a.reloads, rules), c.ReloadInterval, logger, reg, time.Now)
	return a, nil
}

// Start runs the App in the background.
func (a *App) Start() {
	ctx, abort := context.WithCancel(context.Background())
	draining, drain := context.WithCancel(ctx)
	a.abort, a.drain = abort, drain
	if a.operations != nil {
		a.operations.Start()
		a.cleanups.add("metrics server", func() error { a.operations.Stop(); return nil })
	}
	var background sync.WaitGroup
	reloading, stopReloads := context.WithCancel(ctx)
	background.Go(func() { a.coordinator.Run(reloading) })
	a.cleanups.add("reload", func() error { stopReloads(); background.Wait(); return nil })
	go func() {
		defer close(a.ended)
		a.err = a.run(ctx, draining)
	}()
	a.logger.WithField("sources", a.config.Sources).Info("running")
}

// Done returns a channel that is closed when the App has ended, by Stop or by a failure.
func (a *App) Done() <-chan struct{} { return a.ended }

// Stop shuts down gracefully: sources stop, and everything received is stored. When ctx ends first, Stop aborts; sources
// send unstored records again. It returns the error that ended the App, if any.
func (a *App) Stop(ctx context.Context) error {
	running := true
	select {
	case <-a.ended:
		running = false
	default:
	}
	a.stopping.Store(true)
	a.drain()
	_, connected := a.parts.connector.Get()
	if !connected {
		a.abort() // nothing can be stored
	}
	select {
	case <-a.ended:
	case <-ctx.Done():
		a.logger.WithError(ctx.Err()).Error("shutdown aborted before all records were stored (ETL_DRAIN_TIMEOUT, or a second signal)")
		a.abort()
		<-a.ended
	}
	a.abort()
	if err := a.cleanups.run(); err != nil {
		a.logger.WithError(err).Error("shutdown cleanup failed")
	}
	s := a.parts.pipeline.Summary()
	log := a.logger.WithFields(logrus.Fields{"received": s.Received, "stored": s.Stored, "duplicates": s.Duplicates, "rejected": total(s.Rejected)})
	switch {
	case a.err == nil:
		log.Info("shutdown complete; all received records are stored")
	case running && !connected:
		log.Info("shutdown before cassandra was reached")
		return nil
	default:
		log.Error("shutdown with unstored records; their sources send them again")
	}
	return a.err
}

// Reload reloads rules, geofences, tokens and certificates. On an error nothing changes.
func (a *App) Reload() error { return a.coordinator.Reload() }

// Addr returns the address of metrics and health checks, or nil if they are disabled.
func (a *App) Addr() net.Addr {
	if a.operations == nil {
		return nil
	}
	return a.operations.Addr()
}

// APIAddr returns the address of the HTTP API, or nil without it.
func (a *App) APIAddr() net.Addr { return a.apiAddr }

var errStopping = errors.New("stopping")

// Ready returns an error while records can't be stored.
func (a *App) Ready(ctx context.Context) error {
	if a.stopping.Load() {
		return errStopping
	}
	return a.parts.connector.Ready(ctx)
}

// run runs the sources until draining ends, and notifies the receivers of alerts.
func (a *App) run(ctx, draining context.Context) error {
	side, end := context.WithCancel(ctx)
	defer end()
	var sides errgroup.Group
	if a.config.ProcessorEnabled {
		sides.Go(func() error {
			if store, err := a.parts.connector.Wait(side); err == nil { // the record path reports an error
				a.parts.publisher.Run(side, store)
			}
			return nil
		})
	}
	if alertmanager := a.parts.alertmanager; alertmanager != nil {
		sides.Go(func() error {
			if _, err := a.parts.connector.Wait(side); err != nil {
				return nil // the record path reports it
			}
			return alertmanager.Run(side)
		})
	} else if a.config.ProcessorEnabled {
		sides.Go(func() error { a.countOpenAlerts(side, a.parts.path); return nil })
	}
	err := a.runPath(ctx, draining, a.parts, false, a.sources...)
	end() // after the last event was sent
	return errors.Join(err, sides.Wait())
}

// cleanups run in reverse order.
type cleanups []cleanup

type cleanup struct {
	name string
	run  func() error
}

func (c *cleanups) add(name string, run func() error) { *c = append(*c, cleanup{name, run}) }

// run runs all cleanups. The error names the failed ones.
func (c *cleanups) run() error {
	var failed []error
	for i := len(*c) - 1; i >= 0; i-- {
		if err := (*c)[i].run(); err != nil {
			failed = append(failed, fmt.Errorf("close %s: %w", (*c)[i].name, err))
		}
	}
	*c = nil
	return errors.Join(failed...)
}
