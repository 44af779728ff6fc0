// Package canary is a vehicle of the pipeline's own. Its records go all the way through the pipeline into the store and
// are read back from there: that they arrive, and how soon, says of the whole what no part can say of itself.
package canary

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Name is that of the source.
const Name = "canary"

// Fleet is the canary's fleet. Nothing is derived for it, and screens leave it out.
const Fleet = "_canary"

// The canary sits where nobody drives and no zone is: the point of the ocean that is farthest from all land.
const (
	lat = -48.8767
	lon = -123.3933
)

// Pauses between two looks for the record. They make a measured time longer by a third, or a quarter of a second, at most.
const (
	firstPause = 20 * time.Millisecond
	mostPause  = 250 * time.Millisecond
)

// setBack is by how much the clock has to be behind the last record to have been set back. A record of the time before would be
// from the future then, and refused.
const setBack = time.Second

// sayAgain is how often lost canaries are spoken of while none arrives.
const sayAgain = 5 * time.Minute

// buckets have a boundary on the objective of 5 s and on the timeout.
var buckets = []float64{.1, .25, .5, 1, 2, 5, 10, 30}

// Options are the settings of a Canary.
type Options struct {
	Interval time.Duration // between two records
	Timeout  time.Duration // for one to become readable; 0 is 30 s
	Device   string        // its id, different for each process; empty is DeviceOf this host
}

// Read says whether the store has a device's record of an instant, in Unix milliseconds. The newest record would not do: one of a
// clock that was ahead hides all that a right clock sends, until that gets there.
type Read func(ctx context.Context, deviceID string, tsMs int64) (bool, error)

// Canary is a source of one record each interval, which it then looks for in the store.
type Canary struct {
	o      Options
	read   Read
	logger logrus.FieldLogger
	now    func() time.Time

	roundtrip prometheus.Histogram
	lastSeen  prometheus.Gauge
	failures  prometheus.Counter

	missing, said time.Time // since when none arrived, and when that was last logged; zero while they do
}

// DeviceOf is the canary's id on a host of that name.
func DeviceOf(host string) string {
	id := []byte("canary-" + host)
	for i := range id {
		if !telemetry.ValidName(string(id[i : i+1])) {
			id[i] = '-'
		}
	}
	return string(id[:min(len(id), telemetry.MaxNameLen)])
}

// New checks the options and registers the metrics with reg.
func New(o Options, read Read, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) (*Canary, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Device == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			host = "unknown"
		}
		o.Device = DeviceOf(host)
	}
	switch {
	case o.Interval <= 0:
		return nil, fmt.Errorf("canary: interval %s: give a time above 0", o.Interval)
	case o.Timeout < 0:
		return nil, fmt.Errorf("canary: timeout %s: give a time above 0", o.Timeout)
	case !telemetry.ValidName(o.Device):
		return nil, fmt.Errorf("canary: device %q: use 1 to %d characters of A-Za-z0-9._:-", o.Device, telemetry.MaxNameLen)
	}
	c := &Canary{
		o: o, read: read, now: now,
		logger: logger.WithFields(logrus.Fields{"fleet": Fleet, "device": o.Device}),
		roundtrip: prometheus.NewHistogram(promutil.Histogram("fleet_etl_canary_roundtrip_seconds",
			"Time from handing over the canary's record until it was read back from the store.", buckets)),
		lastSeen: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fleet_etl_canary_last_seen_timestamp_seconds",
			Help: "When a record of the canary was last read back; 0 never.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_canary_failures_total",
			Help: "Records of the canary that could not be read in time.",
		}),
	}
	reg.MustRegister(c.roundtrip, c.lastSeen, c.failures)
	return c, nil
}

// Name implements pipeline.Source.
func (c *Canary) Name() string { return Name }

// Run implements pipeline.Source: it sends a record each interval until ctx ends, and looks for it before it sends the
// next. Intervals that come due meanwhile are skipped.
func (c *Canary) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	var lastMs int64
	for due := c.now(); ; {
		sentMs := c.now().UnixMilli()
		if lastMs >= sentMs && lastMs-sentMs < setBack.Milliseconds() {
			sentMs = lastMs + 1 // two records of one instant would be duplicates
		}
		lastMs = sentMs
		if err := c.roundTrip(ctx, emit, sentMs); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		due = due.Add(c.o.Interval)
		if late := c.now().Sub(due); late > 0 {
			due = due.Add(late.Truncate(c.o.Interval) + c.o.Interval)
		}
		if wait := due.Sub(c.now()); wait > c.o.Interval { // the clock was set back
			due = due.Add(c.o.Interval - wait)
		}
		if !sleep(ctx, due.Sub(c.now())) {
			return nil
		}
	}
}

// roundTrip sends one record and looks for it. The error is that of emit.
func (c *Canary) roundTrip(ctx context.Context, emit func(pipeline.Batch) error, sentMs int64) error {
	started := c.now()
	outcome := make(chan pipeline.Outcome, 1)
	record := telemetry.Record{DeviceID: c.o.Device, FleetID: Fleet, TimeMs: sentMs, Lat: lat, Lon: lon, SpeedKmh: telemetry.Some(0.0)}
	batch := pipeline.Batch{
		Origin: Name, Items: []pipeline.Item{{Record: record}}, Accepted: started,
		Done: func(o pipeline.Outcome) { outcome <- o },
	}
	patience, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	tooLate, err := c.emit(ctx, patience, emit, batch)
	if err != nil || tooLate {
		return err
	}
	switch err := c.look(patience, sentMs, outcome); {
	case ctx.Err() != nil:
	case err != nil:
		c.miss(err)
	default:
		c.seen(c.now().Sub(started))
	}
	return nil
}

// emit hands over the record. A pipeline that is full for longer than the canary's patience is a miss at that moment, and
// not only once there is room again.
func (c *Canary) emit(ctx, patience context.Context, emit func(pipeline.Batch) error, batch pipeline.Batch) (tooLate bool, err error) {
	handed := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-patience.Done():
			if tooLate = ctx.Err() == nil; tooLate {
				c.miss(errors.New("the pipeline is full and takes no record"))
			}
		case <-handed:
		}
	})
	err = emit(batch)
	close(handed)
	waiting.Wait()
	return tooLate, err
}

// look returns when the record can be read, or with what was in the way.
func (c *Canary) look(ctx context.Context, sentMs int64, outcome <-chan pipeline.Outcome) error {
	obstacle := errors.New("it is not stored yet")
	for pause := firstPause; ; pause = min(pause*3/2, mostPause) {
		stored, err := c.read(ctx, c.o.Device, sentMs)
		switch {
		case stored:
			return nil
		case err != nil && ctx.Err() == nil:
			obstacle = fmt.Errorf("read it back: %w", err)
		}
		select {
		case o := <-outcome:
			if len(o.Rejected) > 0 {
				return fmt.Errorf("the pipeline refused it: %w", o.Rejected[0].Rejection)
			}
		default:
		}
		if !sleep(ctx, pause) {
			return obstacle
		}
	}
}

func (c *Canary) seen(took time.Duration) {
	now := c.now()
	c.roundtrip.Observe(took.Seconds())
	c.lastSeen.Set(float64(now.UnixMilli()) / 1000)
	if !c.missing.IsZero() {
		c.logger.WithField("after", now.Sub(c.missing).Round(time.Second).String()).Info("the canary can be read again")
		c.missing = time.Time{}
	}
}

func (c *Canary) miss(why error) {
	now := c.now()
	c.failures.Inc()
	log := c.logger.WithFields(logrus.Fields{"reason": why.Error(), "timeout": c.o.Timeout.String()})
	switch {
	case c.missing.IsZero():
		c.missing, c.said = now, now
		log.Warn("a record of the canary could not be read in time")
	case now.Sub(c.said) >= sayAgain:
		c.said = now
		log.WithField("for", now.Sub(c.missing).Round(time.Second).String()).Warn("records of the canary still can't be read in time")
	}
}

// sleep gives false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
