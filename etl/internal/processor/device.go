package processor

import (
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The reasons to recompute a device.
const (
	reasonLate      = "late"
	reasonShared    = "shared"
	reasonTakenOver = "taken_over"
	reasonFenced    = "fenced"
	reasonGap       = "gap"
	reasonExpiring  = "expiring"
)

// device is a device that sent recently.
type device struct {
	id       string
	state    derived.State
	day      cassandra.Day // of the latest record in state
	loading  bool          // its state is not read from the store yet
	batch    []*telemetry.Record
	lastSeen time.Time // when a record was stored last

	dirty        bool // the state is not to be trusted: recompute from dirtyFrom on
	reason       string
	dirtyFrom    cassandra.Day
	whole        bool               // rows of it may be stored in part: write all of them
	recomputing  bool               // it is recomputed right now
	backlog      []telemetry.Record // records that were stored meanwhile
	overflow     bool               // there were more than fit into backlog
	recomputedAt time.Time          // begin of the last recomputation with strong reads
	weak         bool               // the last recomputation had fallback reads
	retryAt      time.Time          // its rows can't be read or written: when they are tried again; zero: they can

	changed   bool          // its rows must be written
	owesOpen  bool          // its open trip and alerts must be written, when they are due
	slowDue   time.Time     // when that is
	flushedAt time.Time     // when hours of it were written last
	hours     []rollup.Hour // final hours to write
	trips     []rollup.Trip // trips and stops to write
	events    []telemetry.AlertEvent
	days      []cassandra.DeviceDay // days that have ended

	beforeSilence []byte // encoded state after the last record, where time without a record has changed it since

	considered int                                     // events that were notified, or will not be
	knownMs    int64                                   // event time up to which openings of alerts were notified
	notified   map[derived.AlertKey]telemetry.Severity // open alerts that receivers know
	held       map[derived.AlertKey]time.Time          // open alerts that they are to know if they last, and when those were found
	resend     bool                                    // an instance that crashed may have stored changes of alerts without having sent them
	announced  []derived.AlertKey                      // open alerts whose row does not say yet that receivers know them
	later      map[derived.AlertKey]telemetry.Severity // stored alerts after the last record of the stored state
	laterOver  bool                                    // a newer record has come since
}

// stored returns the state to store: after the last record, without what the silence since then led to. A late record may
// still break that silence.
func (v *device) stored() []byte {
	if v.beforeSilence != nil {
		return v.beforeSilence
	}
	return v.state.Encode()
}

// breaksSilence reports whether a record comes before an alert that the silence after the last record had led to before
// the state was stored.
func (v *device) breaksSilence(ms int64) bool {
	for key := range v.later {
		if ms <= key.OpenedMs {
			return true
		}
	}
	return false
}

// advance lets time pass without a record. Called when that changes the state.
func (v *device) advance(e *alerting.Engine, nowMs int64) {
	if v.beforeSilence == nil {
		v.beforeSilence = v.state.Encode()
	}
	v.state.Advance(e, nowMs, v)
	v.changed = true
}

// noteNotified records that receivers know an alert.
func (v *device) noteNotified(key derived.AlertKey, severity telemetry.Severity) {
	if v.notified == nil {
		v.notified = map[derived.AlertKey]telemetry.Severity{}
	}
	v.notified[key] = severity
}

// hold has receivers notified of an open alert later; see Processor.announce.
func (v *device) hold(key derived.AlertKey, found time.Time) {
	if v.held == nil {
		v.held = map[derived.AlertKey]time.Time{}
	}
	v.held[key] = found
}

// restoreNotified takes the stored open alerts that receivers are notified of as notified.
func (v *device) restoreNotified(open []cassandra.Alert) {
	for _, row := range open {
		if key := derived.KeyOfRow(row); row.Notify && v.notified[key] == "" {
			v.noteNotified(key, telemetry.Severity(row.Severity))
		}
	}
}

// failing reports whether the device's rows can't be read or written.
func (v *device) failing() bool { return !v.retryAt.IsZero() }

// clean reports whether nothing of the device waits to be written.
func (v *device) clean() bool { return !v.changed && v.waiting() == 0 }

// waiting is the number of final rows that wait to be written.
func (v *device) waiting() int {
	return len(v.hours) + len(v.trips) + len(v.events) + len(v.announced) + len(v.days)
}

// Hour, Trip and Alert keep what follows from the device's records until it is written.
func (v *device) Hour(h rollup.Hour)               { v.hours = append(v.hours, h) }
func (v *device) Trip(t rollup.Trip)               { v.trips = append(v.trips, t) }
func (v *device) Alert(event telemetry.AlertEvent) { v.events = append(v.events, event) }

// markDirty has the device recomputed from a day on.
func (v *device) markDirty(from cassandra.Day, reason string) {
	if !v.dirty || from < v.dirtyFrom {
		v.dirtyFrom = from
	}
	if !v.dirty {
		v.reason = reason
	}
	v.dirty = true
}
