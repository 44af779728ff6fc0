package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
)

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
