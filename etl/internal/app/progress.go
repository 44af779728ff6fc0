package app

import (
	"context"
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// showProgress shows the progress of a load until end is called: a bar on a terminal, log lines elsewhere.
func (a *App) showProgress(progress func() (done, total int64)) (end func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	finished := make(chan struct{})
	started := time.Now()
	interval, show := 5*time.Second, func(written, done, all int64, rate float64) {
		fields := logrus.Fields{"written": written, "rate": fmt.Sprintf("%.0f/s", rate)}
		if all > 0 {
			fields["percent"] = fmt.Sprintf("%.1f", 100*float64(done)/float64(all))
		}
		a.logger.WithFields(fields).Info("loading")
	}
	closeBar := func() error { return nil }
	if isTerminal(a.Err) {
		_, all := progress()
		if all == 0 {
			all = -1 // a spinner
		}
		bar := progressbar.NewOptions64(all,
			progressbar.OptionSetWriter(a.Err), progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(30),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetRenderBlankState(true))
		closeBar = bar.Finish
		interval, show = 200*time.Millisecond, func(written, done, all int64, rate float64) {
			bar.Describe(fmt.Sprintf("%d records written, %.0f/s", written, rate))
			_ = bar.Set64(min(done, all))
		}
	}
	go func() {
		defer close(finished)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				_ = closeBar()
				return
			}
			written := a.exec.Rows()[cassandra.TableHistory]
			done, all := a.processed(progress, written)
			show(written, done, all, float64(written)/time.Since(started).Seconds())
		}
	}()
	return func() { cancel(); <-finished }
}

// processed returns how many bytes of the input are done: read, and their records stored, rejected or duplicate. The
// number of written records grows with each mutation, that of stored ones with each flush.
func (a *App) processed(progress func() (done, total int64), written int64) (done, all int64) {
	done, all = progress()
	s := a.pipeline.Summary()
	if s.Received == 0 {
		return 0, all
	}
	ready := float64(written+s.Duplicates+total(s.Rejected)) / float64(s.Received)
	return int64(float64(done) * min(1, ready)), all
}
