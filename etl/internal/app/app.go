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

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/registry"
	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
)

// App moves records from its sources to the store until it is stopped or its sources end. Call New, Start and Stop in this
// order, each once.
//
//	HTTP API ─► spool ─┐
//	Kafka ─────────────┼─► validate ─► recordPath: store, derive (path.go) ─► Alertmanager, Kafka
//	generator, canary ─┘       └─► dead letters
//
//	SIGHUP, POST /-/reload, changed files ─► reload ─► rules, geofences, tokens, certificate
type App struct {
	*program
	connector    *cassandra.Connector
	exec         *executor.Executor
	registry     *registry.Registry
	clock        *clock
	rules        *rules
	publisher    *geofencePublisher
	path         *recordPath
	deadLetters  *deadletter.File
	alertmanager *notifier.Alertmanager // nil if there is none
	pipeline     *pipeline.Pipeline
	sources      []pipeline.Source
	toEnd        bool                // the sources end, as in a load, and no receiver is notified of alerts
	reloads      []reload.Target     // files of the HTTP API
	coordinator  *reload.Coordinator // nil with toEnd
	operations   *operationsServer   // nil if disabled
	apiAddr      net.Addr            // nil without the HTTP API

	cleanups cleanups
	stopping atomic.Bool
	drain    context.CancelFunc // stops the sources
	abort    context.CancelFunc // stops everything at once
	ended    chan struct{}
	err      error         // after ended is closed
	took     time.Duration // after ended is closed
}

// New wires an App: it reads the files of the settings and listens, but connects to nothing yet. An error names the
// setting. Metrics are registered with reg.
func New(c *config.Config, logger *logrus.Logger, reg *prometheus.Registry) (_ *App, err error) {
	a := newApp(&program{config: c, logger: logger, reg: reg})
	defer func() {
		if err != nil {
			err = errors.Join(err, a.cleanups.run())
		}
	}()
	if err := a.wire(c.Linger, c.Sources); err != nil {
		return nil, err
	}
	if err := a.addSources(); err != nil {
		return nil, err
	}
	var reloadByRequest func() error
	if c.ReloadEnabled {
		reloadByRequest = a.Reload
	}
	if err := a.listenOperations(reloadByRequest); err != nil {
		return nil, err
	}
	a.coordinator = reload.New(append(a.reloads, a.rules.target(a.publisher.notify)), c.ReloadInterval, logger, reg)
	return a, nil
}

func newApp(p *program) *App { return &App{program: p, ended: make(chan struct{})} }

// listenOperations listens on ETL_METRICS_ADDRESS, if it is set.
func (a *App) listenOperations(reload func() error) (err error) {
	if a.config.MetricsAddress == "" {
		return nil
	}
	a.operations, err = newOperationsServer(operationsOptions{
		Address: a.config.MetricsAddress, Gatherer: a.reg, Ready: a.Ready, Reload: reload, Pprof: a.config.Pprof,
	}, a.logger)
	return err
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
	if a.coordinator != nil {
		var background sync.WaitGroup
		reloading, stopReloads := context.WithCancel(ctx)
		background.Go(func() { a.coordinator.Run(reloading) })
		a.cleanups.add("reload", func() error { stopReloads(); background.Wait(); return nil })
	}
	started := time.Now()
	go func() {
		defer close(a.ended)
		a.err = a.run(ctx, draining)
		a.took = time.Since(started)
	}()
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
	_, connected := a.connector.Get()
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
	s := a.pipeline.Summary()
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
	return a.connector.Ready(ctx)
}

// run runs the sources until they end or draining does, and notifies the receivers of alerts.
func (a *App) run(ctx, draining context.Context) error {
	if a.toEnd {
		if err := a.publishGeofences(ctx); err != nil {
			return err
		}
		return a.runPath(ctx, draining)
	}
	side, end := context.WithCancel(ctx)
	defer end()
	var sides errgroup.Group
	sides.Go(func() error { a.deadLetters.Run(side); return nil })
	sides.Go(func() error {
		store, err := a.connector.Wait(side)
		if err != nil {
			return nil // the record path reports it
		}
		if a.config.ProcessorEnabled {
			sides.Go(func() error { a.publisher.Run(side, store); return nil })
		}
		if a.alertmanager != nil {
			return a.alertmanager.Run(side)
		}
		if a.config.ProcessorEnabled {
			a.countOpenAlerts(side)
		}
		return nil
	})
	err := a.runPath(ctx, draining)
	end() // after the last event was sent
	return errors.Join(err, sides.Wait())
}

// publishGeofences stores the geofences once.
func (a *App) publishGeofences(ctx context.Context) error {
	if !a.config.ProcessorEnabled {
		return nil
	}
	store, err := a.connector.Wait(ctx)
	if err != nil {
		return err
	}
	return a.publisher.publish(ctx, store)
}

// runPath stores what the sources emit, and then derives what is left.
func (a *App) runPath(ctx, draining context.Context) error {
	if err := a.pipeline.Run(ctx, draining, a.sources...); err != nil {
		return err
	}
	err := a.path.Finish(ctx, a.toEnd && draining.Err() == nil)
	if err != nil && ctx.Err() != nil {
		a.logger.WithError(err).Warn("all records are stored, but not all derived rows; the next process derives the rest")
		return nil
	}
	return err
}

// countOpenAlerts reads the open alerts for their metric, as Alertmanager does where there is one.
func (a *App) countOpenAlerts(ctx context.Context) {
	outage := ratelog.New(a.logger, time.Now, ratelog.Interval, ratelog.Messages{
		Down: "reading open alerts failed, their metric is out of date",
		Up:   "reading open alerts works again",
	})
	for ctx.Err() == nil {
		if _, err := a.path.openAlerts(ctx); ctx.Err() == nil {
			outage.Note(err)
		}
		_ = backoff.Sleep(ctx, alertResend)
	}
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
