package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/replay"
)

type loadCommand struct {
	fileFlags
	Report string `enum:"text,json" default:"text" help:"Report format: text or json."`
}

// Run loads the files and prints a report. The same command resumes an interrupted run.
func (c *loadCommand) Run(p *program) error {
	options, err := c.options(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.config.StateDir, 0o750); err != nil {
		return fmt.Errorf("ETL_STATE_DIR: %w", err)
	}
	if _, err := csvfile.New(options); err != nil {
		return err // before anything connects
	}
	checkpoint := &csvfile.Checkpoint{}
	err = p.loadFrom(func(a *App) (_ pipeline.Source, err error) {
		if options.Target, err = c.target(a); err != nil {
			return nil, err
		}
		if checkpoint, err = csvfile.OpenCheckpoint(p.stop, p.config.StateDir, options); err != nil {
			checkpoint = &csvfile.Checkpoint{}
			return nil, err
		}
		options.Checkpoint = checkpoint
		if _, resumed := checkpoint.Shift(); !resumed {
			if options.Shift, err = c.shift(p, options); err != nil {
				return nil, err
			}
		}
		p.logResumed(checkpoint)
		return csvfile.New(options)
	}, options.Files, c.Report, func() error { return checkpoint.Complete() })
	return errors.Join(err, checkpoint.Close())
}

// target identifies the table that is loaded into, and what changes the rows that are stored.
func (c *loadCommand) target(a *App) ([]string, error) {
	store, ok := a.connector.Get()
	if !ok {
		return nil, cassandra.ErrNotConnected
	}
	history, err := store.HistoryID(a.stop)
	return []string{
		history, strings.Join(a.config.Fleets, ","), a.rules.current.Load().fingerprint, fmt.Sprint(a.config.ProcessorEnabled), a.config.UnknownDevices, c.StartAt, c.EndAt,
	}, err
}

type replayCommand struct {
	fileFlags
	Speed  float64 `default:"1" help:"Speed relative to the recording."`
	Report string  `enum:"text,json" default:"text" help:"Report format: text or json."`
}

// Run replays the files and prints a report.
func (c *replayCommand) Run(p *program) error {
	options, err := c.options(p)
	if err != nil {
		return err
	}
	if options.Shift, err = c.shift(p, options); err != nil {
		return err
	}
	trace, err := csvfile.New(options)
	if err != nil {
		return err
	}
	first, last, n, err := csvfile.TimeRange(p.stop, options)
	if err != nil {
		return err
	}
	if err := replay.CheckPace(first+options.Shift.Milliseconds(), last+options.Shift.Milliseconds(), time.Now(), c.Speed); n > 0 && err != nil {
		return err
	}
	source, err := replay.New(replay.Options{Trace: trace, Speed: c.Speed, Total: n})
	if err != nil {
		return err
	}
	return p.loadFrom(made(source), options.Files, c.Report, func() error { return nil })
}

// newSource makes the source of an App that is connected.
type newSource func(*App) (pipeline.Source, error)

// made returns a source that exists.
func made(s pipeline.Source) newSource { return func(*App) (pipeline.Source, error) { return s, nil } }

// runUntilDone runs a source to its end. If the pipeline ran, it returns an unfinished report, also with an error.
func (p *program) runUntilDone(create newSource, names []string) (*report, error) {
	a, err := p.connect()
	if err != nil {
		return nil, err
	}
	source, err := create(a)
	if err != nil {
		return nil, errors.Join(err, a.cleanups.run())
	}
	a.sources, a.toEnd = []pipeline.Source{source}, true
	if err := a.listenOperations(nil); err != nil {
		p.logger.WithError(err).Info("metrics are not served") // another fleet-etl may use the port; the load does not need it
	}
	progress := func() (done, total int64) { return 0, 0 }
	if s, ok := source.(interface{ Progress() (done, total int64) }); ok {
		progress = s.Progress
	}
	ended := a.logProgress(progress)
	err = p.runApp(a)
	ended()
	return a.report(names, progress), err
}

// errInterrupted is the result of a run that was stopped before its source ended.
var errInterrupted = errors.New("interrupted; run the same command again to resume")

// loadFrom runs a source to its end and prints a report. complete is called once everything is stored.
func (p *program) loadFrom(source newSource, names []string, form string, complete func() error) error {
	report, err := p.runUntilDone(source, names)
	if report == nil {
		return err
	}
	switch {
	case err == nil && p.stop.Err() != nil:
		err = errInterrupted
	case err == nil:
		err = complete()
	}
	report.finish(err)
	if e := report.print(p.Out, form); e != nil {
		return errors.Join(err, e)
	}
	if err == nil && report.RejectedTotal > 0 {
		return findingsError{report.RejectedTotal, "records were rejected"}
	}
	return err
}

func (p *program) logResumed(checkpoint *csvfile.Checkpoint) {
	for _, file := range checkpoint.Changed() {
		p.logger.WithField("file", file).Info("file has changed since the interrupted run, loading it from the start")
	}
	if file, line, ok := checkpoint.Resumed(); ok {
		p.logger.WithFields(logrus.Fields{"file": file, "line": line}).Info("resuming an interrupted run")
	}
}

// progressInterval is the time between two log lines about the progress of a load.
const progressInterval = 5 * time.Second

// logProgress logs the progress of a load until end is called. The share that is done is one of the input's bytes: they are
// read, and their records are stored, rejected or duplicates.
func (a *App) logProgress(progress func() (done, total int64)) (end func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	started := time.Now()
	var logging sync.WaitGroup
	logging.Go(func() {
		for backoff.Sleep(ctx, progressInterval) == nil {
			// Written records grow with each mutation, stored ones with each flush.
			s, written := a.pipeline.Summary(), a.exec.Rows(cassandra.TableHistory)
			fields := logrus.Fields{
				"received": s.Received, "written": written, "rejected": total(s.Rejected),
				"rate": fmt.Sprintf("%.0f/s", float64(written)/time.Since(started).Seconds()),
			}
			if done, all := progress(); all > 0 && s.Received > 0 {
				ready := float64(written+s.Duplicates+total(s.Rejected)) / float64(s.Received)
				fields["percent"] = fmt.Sprintf("%.1f", 100*float64(done)/float64(all)*min(1, ready))
			}
			a.logger.WithFields(fields).Info("loading")
		}
	})
	return func() { cancel(); logging.Wait() }
}
