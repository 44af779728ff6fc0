package derive

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// outcome is every row that follows from a stretch of a device's fixes.
type outcome struct {
	rows
	alerts map[alertKey]telemetry.Alert
	days   []cassandra.DeviceDay // each day with fixes, with the state at its end
	fixes  map[int64]uint64      // those of the last day: their payloads' hashes by event time

	base  state // that it began with
	state state // that it ended with
	day   cassandra.Day
	steps []telemetry.AlertEvent

	unadvanced []byte // state before time went on without a fix, where that changed it
	lastFix    telemetry.Record
	count      int // of fixes
}

func newOutcome() *outcome {
	return &outcome{rows: newRows(), alerts: map[alertKey]telemetry.Alert{}}
}

type tripKey struct {
	startMs int64
	kind    rollup.TripKind
}

type alertKey struct {
	openedMs int64
	kind     telemetry.AlertType
}

func keyOfAlert(a telemetry.Alert) alertKey { return alertKey{a.OpenedMs, a.Type} }

func keyOfRow(r cassandra.AlertState) alertKey {
	return alertKey{r.OpenedMs, telemetry.AlertType(r.Type)}
}

// Step notes an alert as it now is.
func (o *outcome) Step(s telemetry.AlertEvent) {
	o.alerts[keyOfAlert(s.Alert)] = s.Alert
	o.steps = append(o.steps, s)
}

// daysAtOnce are read side by side.
const daysAtOnce = 4

// replay derives a device from its stored fixes from the first day to the last, beginning with the state at the end of
// the day before the first, and lets time go on to untilMs.
func replay(ctx context.Context, s Store, e *alerting.Engine, deviceID string, first, last cassandra.Day, rules string, untilMs int64) (*outcome, error) {
	o := newOutcome()
	before, found, err := s.LastDeviceDay(ctx, deviceID, first-1)
	if err != nil {
		return nil, err
	}
	if found {
		if base, ok := decodeState(before.State); ok {
			o.base, o.day = base, before.Day
			o.state, _ = decodeState(before.State) // a state of its own
		}
	}
	for first <= last {
		n := min(daysAtOnce, int(last-first)+1)
		wave := make([][]cassandra.Telemetry, n)
		g, gctx := errgroup.WithContext(ctx)
		for i := range wave {
			g.Go(func() (err error) {
				wave[i], err = s.Positions(gctx, deviceID, first+cassandra.Day(i))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, fixes := range wave {
			if err := o.feed(e, first+cassandra.Day(i), fixes, rules); err != nil {
				return nil, err
			}
		}
		first += cassandra.Day(n)
	}
	if next, ok := e.Next(&o.state.Alerts); ok && next <= untilMs {
		if o.unadvanced, err = o.state.encode(); err != nil {
			return nil, err
		}
		o.state.advance(e, untilMs, o)
	}
	o.state.Roll.Current(o)
	for a := range o.state.Alerts.Open() {
		o.alerts[keyOfAlert(a)] = a
	}
	return o, nil
}

// feed derives one day.
func (o *outcome) feed(e *alerting.Engine, day cassandra.Day, fixes []cassandra.Telemetry, rules string) error {
	var fleets []string
	fed := 0
	for i := range fixes {
		r := recordOf(&fixes[i])
		if r.FleetID == "" || telemetry.PlatformFleet(r.FleetID) {
			continue // left behind by a device that moved, or the platform's own
		}
		if fed == 0 {
			o.fixes = make(map[int64]uint64, len(fixes))
		}
		fed++
		if len(fleets) == 0 || fleets[len(fleets)-1] != r.FleetID {
			fleets = append(fleets, r.FleetID)
		}
		o.fixes[r.TimeMs] = r.PayloadHash()
		o.state.apply(e, &r, o)
		o.lastFix = r
	}
	if fed == 0 {
		return nil
	}
	text, err := o.state.encode()
	if err != nil {
		return err
	}
	o.day = day
	o.count += fed
	o.days = append(o.days, cassandra.DeviceDay{Day: day, State: text, Fleets: fleets, Rules: rules})
	return nil
}

// recordOf is a stored fix as the record that it was.
func recordOf(t *cassandra.Telemetry) telemetry.Record {
	return telemetry.Record{
		DeviceID: t.DeviceID, FleetID: t.FleetID, Zone: t.Zone, TimeMs: t.Ts.UnixMilli(), Lat: t.Lat, Lon: t.Lon,
		SpeedKmh: telemetry.FromPtr(t.SpeedKmh), HeadingDeg: telemetry.FromPtr(t.HeadingDeg), TempC: telemetry.FromPtr(t.TempC),
		BatteryPct: telemetry.FromPtr(t.BatteryPct), AccuracyM: telemetry.FromPtr(t.AccuracyM),
	}
}
