package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/csvfile"
)

type loadCommand struct {
	fileFlags
	Report string `enum:"text,json" default:"text" help:"Form of the report: text or json."`
}

// Run loads the files and reports. A run that was interrupted goes on where it was when the same command comes again.
func (c *loadCommand) Run(p *program) error {
	options, err := c.options(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.config.StateDir, 0o750); err != nil {
		return fmt.Errorf("ETL_STATE_DIR: %w", err)
	}
	checkpoint, err := csvfile.OpenCheckpoint(p.config.StateDir, options)
	if err != nil {
		return err
	}
	options.Checkpoint = checkpoint
	return errors.Join(c.load(p, options), checkpoint.Close())
}

func (c *loadCommand) load(p *program, options csvfile.Options) (err error) {
	checkpoint := options.Checkpoint
	if _, resumed := checkpoint.Shift(); !resumed {
		if options.Shift, err = c.shift(p, options); err != nil {
			return err
		}
	}
	source, err := csvfile.New(options)
	if err != nil {
		return err
	}
	p.sayResumed(checkpoint)
	return p.loadFrom(source, options.Files, c.Report, checkpoint.Complete)
}

// runToEnd runs one source to its end. The report is there, but not finished, when the pipeline ran at all, whatever
// the error.
func (p *program) runToEnd(source pipeline.Source, names []string) (*report, error) {
	x, err := p.connect(p.config.CassandraConnectWait, p.config.LoadLinger)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if end, err := p.serve(x.ready, nil); err != nil {
		p.logger.WithError(err).Info("metrics are not served") // another fleet-etl may use the port; the load does not need it
	} else {
		defer end()
	}

	progress := func() (done, total int64) { return 0, 0 }
	if s, ok := source.(interface{ Progress() (done, total int64) }); ok {
		progress = s.Progress
	}
	started := time.Now()
	ctx, cancel := p.drain(p.config.DrainTimeout)
	defer cancel()
	ended := p.showProgress(x, progress)
	err = p.toEnd(ctx, x, source)
	ended()
	return x.report(names, time.Since(started), progress), err
}

// errInterrupted ends a run that was told to stop before its source ended.
var errInterrupted = errors.New("interrupted; give the same command again to go on")

// loadFrom runs one source to its end and reports. complete is called when everything is stored.
func (p *program) loadFrom(source pipeline.Source, names []string, form string, complete func() error) error {
	report, err := p.runToEnd(source, names)
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
		return rejectedError{report.RejectedTotal}
	}
	return err
}

func (p *program) sayResumed(checkpoint *csvfile.Checkpoint) {
	for _, file := range checkpoint.Changed() {
		p.logger.WithField("file", file).Info("file has changed since the interrupted run; reading it anew")
	}
	if file, line, ok := checkpoint.Resumed(); ok {
		p.logger.WithFields(logrus.Fields{"file": file, "line": line}).Info("going on where an interrupted run was")
	}
}

// progressEvery is the time between two log lines of progress where no terminal shows a bar.
const progressEvery = 5 * time.Second

// showProgress shows how far a load is until the returned function is called: a bar on a terminal, lines elsewhere.
func (p *program) showProgress(x *parts, progress func() (done, total int64)) (end func()) {
	ctx, cancel := context.WithCancel(p.ctx)
	finished := make(chan struct{})
	show := p.logProgress
	if isTerminal(p.Err) {
		show = p.drawProgress
	}
	go func() {
		defer close(finished)
		show(ctx, x, progress)
	}()
	return func() { cancel(); <-finished }
}

func (p *program) logProgress(ctx context.Context, x *parts, progress func() (done, total int64)) {
	started := time.Now()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		s, written := x.soFar()
		fields := logrus.Fields{
			"received": s.Received, "written": written, "rejected": total(s.Rejected),
			"rate": fmt.Sprintf("%.0f/s", float64(written)/time.Since(started).Seconds()),
		}
		if done, all := settled(progress, s, written); all > 0 {
			fields["percent"] = fmt.Sprintf("%.1f", 100*float64(done)/float64(all))
		}
		p.logger.WithFields(fields).Info("loading")
	}
}

// soFar gives the counts and the records written. Those are counted as each mutation is, where the counts' own stored
// ones wait for their whole window.
func (x *parts) soFar() (s pipeline.Summary, written int64) {
	return x.pipeline.Summary(), x.exec.Rows()[cassandra.TableHistory]
}

// settled is how much of the input needs nothing more, in bytes: what was read, less what still waits to be written.
func settled(progress func() (done, total int64), s pipeline.Summary, written int64) (done, all int64) {
	done, all = progress()
	if s.Received == 0 {
		return 0, all
	}
	ready := float64(written+s.Duplicates+total(s.Rejected)) / float64(s.Received)
	return int64(float64(done) * min(1, ready)), all
}
