// Package recompute derives a device from its stored records, and compares the result with the derived rows that are
// stored.
package recompute

import (
	"context"
	"hash/maphash"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Store is what a device is recomputed from.
type Store interface {
	Positions(ctx context.Context, deviceID string, day cassandra.Day) ([]cassandra.Telemetry, error)
	LastDeviceDay(ctx context.Context, deviceID string, day cassandra.Day) (cassandra.DeviceDay, bool, error)
	DeviceDays(ctx context.Context, deviceID string, day cassandra.Day) ([]cassandra.DeviceDay, error)
	Trips(ctx context.Context, deviceID string, fromMs, toMs int64) ([]cassandra.TripRow, error)
	DeviceAlerts(ctx context.Context, deviceID string, fromMs, toMs int64) ([]cassandra.Alert, error)
	Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error)
	OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]cassandra.Alert, error)
}

// Outcome is every row that follows from the records of a device in a range of days.
type Outcome struct {
	derived.Stats
	Alerts map[derived.AlertKey]telemetry.Alert
	Events []telemetry.AlertEvent
	Days   []cassandra.DeviceDay // each day with records, with the state at its end

	Base    derived.State // at the begin of the range
	State   derived.State // at its end
	LastDay cassandra.Day // of the newest record
	// BeforeSilence is the encoded state before event time passed without a record; nil where that changed nothing.
	BeforeSilence []byte

	LastRecord telemetry.Record
	Count      int // of records
	secret     maphash.Seed
	records    map[int64]uint64 // keyed hashes of the records of the last day, by event time
}

// NewOutcome returns an outcome without records.
func NewOutcome() *Outcome {
	return &Outcome{secret: maphash.MakeSeed(), Stats: derived.NewStats(), Alerts: map[derived.AlertKey]telemetry.Alert{}}
}

// Alert implements derived.Sink.
func (o *Outcome) Alert(event telemetry.AlertEvent) {
	o.Alerts[derived.KeyOf(event.Alert)] = event.Alert
	o.Events = append(o.Events, event)
}

// Includes reports whether the outcome follows from a record, too. It knows only the records of the last day.
func (o *Outcome) Includes(r *telemetry.Record) bool {
	hash, ok := o.records[r.TimeMs]
	return ok && hash == r.KeyedHash(o.secret)
}

// daysInParallel is the number of days that are read in parallel.
const daysInParallel = 4

// Replay derives a device from its stored records, from the first day to the last. It begins with the state at the end of
// the day before the first, and lets event time pass until untilMs.
func Replay(ctx context.Context, s Store, rules derived.Rules, deviceID string, first, last cassandra.Day, untilMs int64) (*Outcome, error) {
	o := NewOutcome()
	before, found, err := s.LastDeviceDay(ctx, deviceID, first-1)
	if err != nil {
		return nil, err
	}
	if found {
		if base, ok := derived.Decode(before.State); ok {
			o.Base, o.LastDay = base, before.Day
			o.State, _ = derived.Decode(before.State) // a copy
		}
	}
	for first <= last {
		n := min(daysInParallel, int(last-first)+1)
		days := make([][]cassandra.Telemetry, n)
		g, gctx := errgroup.WithContext(ctx)
		for i := range days {
			g.Go(func() (err error) {
				days[i], err = s.Positions(gctx, deviceID, first+cassandra.Day(i))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, records := range days {
			o.applyDay(rules, first+cassandra.Day(i), records)
		}
		first += cassandra.Day(n)
	}
	if next, ok := rules.Engine.Next(&o.State.Alerts); ok && next <= untilMs {
		o.BeforeSilence = o.State.Encode()
		o.State.Advance(rules.Engine, untilMs, o)
	}
	o.State.Roll.Current(o) // the rows that are still open
	for a := range o.State.Alerts.Open() {
		o.Alerts[derived.KeyOf(a)] = a
	}
	return o, nil
}

func (o *Outcome) applyDay(rules derived.Rules, day cassandra.Day, records []cassandra.Telemetry) {
	var fleets []string
	applied := 0
	for i := range records {
		r, ok := derived.RecordOf(&records[i])
		if !ok || r.FleetID == "" || telemetry.PlatformFleet(r.FleetID) {
			continue // a cell that a moved device left, a row of another program, or a fleet of the platform itself
		}
		if applied == 0 {
			o.records = make(map[int64]uint64, len(records))
		}
		applied++
		if len(fleets) == 0 || fleets[len(fleets)-1] != r.FleetID {
			fleets = append(fleets, r.FleetID)
		}
		o.records[r.TimeMs] = r.KeyedHash(o.secret)
		o.State.Apply(rules.Engine, &r, o)
		o.LastRecord = r
	}
	if applied > 0 {
		o.LastDay = day
		o.Count += applied
		o.Days = append(o.Days, cassandra.DeviceDay{Day: day, State: o.State.Encode(), Fleets: fleets, Rules: rules.Fingerprint})
	}
}
