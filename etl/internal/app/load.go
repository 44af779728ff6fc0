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
	p.logResumed(checkpoint)
	return p.loadFrom(source, options.Files, c.Report, checkpoint.Complete)
}

// runUntilDone runs a source to its end. If the pipeline ran, it returns an unfinished report, also with an error.
func (p *program) runUntilDone(source pipeline.Source, names []string) (*report, error) {
	x, err := p.connect(p.config.CassandraConnectWait, p.config.LoadLinger)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if stop, err := p.serveOperations(x.connector.Ready); err != nil {
		p.logger.WithError(err).Info("metrics are not served") // another fleet-etl may use the port; the load does not need it
	} else {
		defer stop()
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

// errInterrupted is the result of a run that was stopped before its source ended.
var errInterrupted = errors.New("interrupted; run the same command again to resume")

// loadFrom runs a source to its end and prints a report. complete is called once everything is stored.
func (p *program) loadFrom(source pipeline.Source, names []string, form string, complete func() error) error {
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
		return rejectedError{report.RejectedTotal}
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

// progressEvery is the interval of progress log lines without a terminal.
const progressEvery = 5 * time.Second

// showProgress shows the progress of a load until end is called: a bar on a terminal, log lines elsewhere.
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
		s, written := x.counts()
		fields := logrus.Fields{
			"received": s.Received, "written": written, "rejected": total(s.Rejected),
			"rate": fmt.Sprintf("%.0f/s", float64(written)/time.Since(started).Seconds()),
		}
		if done, all := processed(progress, s, written); all > 0 {
			fields["percent"] = fmt.Sprintf("%.1f", 100*float64(done)/float64(all))
		}
		p.logger.WithFields(fields).Info("loading")
	}
}

// counts returns the counters of the pipeline and the records written so far. Written records grow with each mutation;
// the stored ones of the pipeline grow with each flush.
func (x *parts) counts() (s pipeline.Summary, written int64) {
	return x.pipeline.Summary(), x.exec.Rows()[cassandra.TableHistory]
}

// processed returns how many bytes of the input are done: read, and their records stored, rejected or duplicate.
func processed(progress func() (done, total int64), s pipeline.Summary, written int64) (done, all int64) {
	done, all = progress()
	if s.Received == 0 {
		return 0, all
	}
	ready := float64(written+s.Duplicates+total(s.Rejected)) / float64(s.Received)
	return int64(float64(done) * min(1, ready)), all
}
