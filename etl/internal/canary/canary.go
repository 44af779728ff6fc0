// Package canary is a synthetic vehicle. Its records pass through the whole pipeline and are read back from the store,
// which measures the latency and availability of the pipeline end to end.
package canary

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Name is the name of the source.
const Name = "canary"

// Fleet is the canary's fleet. It has no derived rows, and dashboards hide it.
const Fleet = "_canary"

// The canary is at Point Nemo, the point of the ocean farthest from land, outside of all geofences.
const (
	lat = -48.8767
	lon = -123.3933
)

// Pauses between two reads. They lengthen a measured time by at most a third, and by at most 250 ms.
const (
	minPause = 20 * time.Millisecond
	maxPause = 250 * time.Millisecond
)

// clockStep is how far the clock must be behind the last record to count as set back. The next record takes the new time then,
// because a later one would be in the future and rejected.
const clockStep = time.Second

// logInterval is the time between two log lines while no record arrives.
const logInterval = 5 * time.Minute

// buckets have boundaries at the SLO of 5 s and at the timeout of fleet-etl.
var buckets = []float64{.1, .25, .5, 1, 2, 5, 10, 30}

// Options are the settings of a Canary. All of them must be set.
type Options struct {
	Interval time.Duration // between two records
	Timeout  time.Duration // until a record must be readable
	Device   string        // device id, unique per instance
}

// Read reports whether the store has a device's record with an event time in Unix milliseconds. The latest record would not
// do: one from a clock that was ahead would hide the following ones.
type Read func(ctx context.Context, deviceID string, tsMs int64) (bool, error)

// Canary is a source of one record per interval, which it reads back from the store.
type Canary struct {
	o      Options
	read   Read
	now    func() time.Time
	outage *ratelog.Outage

	roundtrip prometheus.Histogram
	lastSeen  prometheus.Gauge
	failures  prometheus.Counter
}

// DeviceOf returns the canary's device id on a host.
func DeviceOf(host string) string {
	id := []byte("canary-" + host)
	for i := range id {
		if !telemetry.ValidName(string(id[i : i+1])) {
			id[i] = '-'
		}
	}
	return string(id[:min(len(id), telemetry.MaxNameLen)])
}

// New makes a canary and registers its metrics with reg.
func New(o Options, read Read, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Canary {
	f := promutil.With(reg)
	return &Canary{
		o: o, read: read, now: now,
		outage: ratelog.New(logger.WithFields(logrus.Fields{"fleet": Fleet, "device": o.Device, "timeout": o.Timeout.String()}),
			now, logInterval, ratelog.Messages{
				Down:  "canary record missed its timeout",
				Still: "canary records still miss their timeout",
				Up:    "canary record readable again",
			}),
		roundtrip: f.Histogram("fleet_etl_canary_roundtrip_seconds",
			"Time from emitting a canary record until it was read back from the store.", buckets),
		lastSeen: f.Gauge("fleet_etl_canary_last_seen_timestamp_seconds",
			"Unix time at which a canary record was last read back; 0 if there was none."),
		failures: f.Counter("fleet_etl_canary_failures_total", "Canary records that could not be read back within the timeout."),
	}
}

// Name implements pipeline.Source.
func (c *Canary) Name() string { return Name }

// Run implements pipeline.Source. It emits a record per interval until ctx ends, and reads each one back before it emits the
// next. It skips intervals that become due meanwhile.
func (c *Canary) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	var lastMs int64
	for due := c.now(); ; {
		sentMs := c.now().UnixMilli()
		if lastMs >= sentMs && lastMs-sentMs < clockStep.Milliseconds() {
			sentMs = lastMs + 1 // two records with one event time would be duplicates
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
		if backoff.Sleep(ctx, due.Sub(c.now())) != nil {
			return nil
		}
	}
}

// roundTrip emits one record and reads it back. The error is that of emit.
func (c *Canary) roundTrip(ctx context.Context, emit func(pipeline.Batch) error, sentMs int64) error {
	started := c.now()
	outcome := make(chan pipeline.Outcome, 1)
	record := telemetry.Record{DeviceID: c.o.Device, FleetID: Fleet, TimeMs: sentMs, Lat: lat, Lon: lon, SpeedKmh: telemetry.Some(0.0)}
	batch := pipeline.Batch{
		Origin: Name, Sender: pipeline.Trusted, Items: []pipeline.Item{{Record: record}}, Accepted: started,
		Done: func(o pipeline.Outcome) { outcome <- o },
	}
	deadline, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	// While the pipeline is full, the record is missed at the deadline, although it may still be accepted later.
	cancelMiss := context.AfterFunc(deadline, func() {
		if ctx.Err() == nil {
			c.missed(errors.New("pipeline is full"))
		}
	})
	err := emit(batch)
	if inTime := cancelMiss(); err != nil || !inTime {
		return err
	}
	switch err := c.readBack(deadline, sentMs, outcome); {
	case ctx.Err() != nil:
	case err != nil:
		c.missed(err)
	default:
		c.seen(c.now().Sub(started))
	}
	return nil
}

// readBack returns nil once the record can be read, or the last obstacle.
func (c *Canary) readBack(ctx context.Context, sentMs int64, outcome <-chan pipeline.Outcome) error {
	obstacle := errors.New("not stored yet")
	for pause := minPause; ; pause = min(pause*3/2, maxPause) {
		stored, err := c.read(ctx, c.o.Device, sentMs)
		switch {
		case stored:
			return nil
		case err != nil && ctx.Err() == nil:
			obstacle = fmt.Errorf("read back: %w", err)
		}
		select {
		case o := <-outcome:
			if len(o.Rejected) > 0 {
				return fmt.Errorf("pipeline rejected it: %w", o.Rejected[0].Rejection)
			}
		default:
		}
		if backoff.Sleep(ctx, pause) != nil {
			return obstacle
		}
	}
}

func (c *Canary) seen(took time.Duration) {
	c.roundtrip.Observe(took.Seconds())
	c.lastSeen.Set(float64(c.now().UnixMilli()) / 1000)
	c.outage.Note(nil)
}

func (c *Canary) missed(why error) {
	c.failures.Inc()
	c.outage.Note(why)
}
