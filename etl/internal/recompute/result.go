package recompute

import (
	"context"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Request asks for a device to be recomputed.
type Request struct {
	DeviceID string
	From     cassandra.Day
	Fleets   []string // that the device was seen in
	Shared   bool     // another instance has, or had, records of it too
	Whole    bool     // write every row: some rows of one alert may be stored and others not
	At       int64    // write timestamp, taken before anything is read
	Now      time.Time
}

// Result is a recomputation that replaces stored rows.
type Result struct {
	Request
	*Outcome
	Existing Existing
}

// Latest returns the latest event time that any record can have.
func Latest(now time.Time) int64 { return now.Add(telemetry.MaxAhead).UnixMilli() }

// Device reads what a device is recomputed from, and computes it.
func Device(ctx context.Context, s Store, rules derived.Rules, r Request) (*Result, error) {
	until := Latest(r.Now)
	o, err := Replay(ctx, s, rules, r.DeviceID, r.From, cassandra.DayOf(until), r.Now.UnixMilli())
	if err != nil {
		return nil, err
	}
	existing, err := ReadExisting(ctx, s, r.DeviceID, r.From, &o.Base, until, r.Fleets)
	return &Result{Request: r, Outcome: o, Existing: existing}, err
}

// AddTo adds the rows to write and to delete, without alerts that are open now: see AddOpenAlerts.
func (r *Result) AddTo(c *derived.Changes) {
	gone := map[cassandra.FleetHour]bool{} // hours to which the device may not add anything any more
	r.deleteAlerts(c, gone)
	r.putAlerts(c)
	r.replaceTrips(c)
	r.replaceHours(c, gone)
	for _, day := range r.Days {
		c.PutDay(r.DeviceID, day, r.At)
	}
}

// deleteAlerts deletes rows of alerts that do not exist any more, or that are written again. It notes the hours that
// counted them.
func (r *Result) deleteAlerts(c *derived.Changes, gone map[cassandra.FleetHour]bool) {
	for _, was := range r.Existing.Alerts {
		is, stays := r.Alerts[derived.KeyOfRow(was)]
		if stays && string(is.Severity) == was.Severity && is.FleetID == was.FleetID && (is.EndedMs != 0 || was.EndedMs == 0) {
			continue
		}
		at := r.At
		if stays {
			at-- // it has another severity or fleet, or no end any more, and is written again just after its deletion
		}
		c.DeleteFleetAlert(was, at)
		if was.EndedMs == 0 && (!stays || is.FleetID != was.FleetID) {
			c.DeleteOpenAlert(was, r.At)
		}
		gone[cassandra.FleetHour{FleetID: was.FleetID, HourMs: derived.HourOf(was.OpenedMs)}] = true
		if !stays {
			c.DeleteDeviceAlert(was, r.At)
		}
	}
}

// putAlerts writes the alerts that differ from the stored ones. Of a shared device, whose rows another instance may have
// written or deleted with a fast clock, it writes all, and deletes them from where the other may have found them.
func (r *Result) putAlerts(c *derived.Changes) {
	known := derived.ByKey(r.Existing.Alerts, derived.KeyOfRow)
	for key, a := range r.Alerts {
		row := derived.AlertRow(r.DeviceID, a)
		if r.Shared || r.Whole {
			r.deleteElsewhere(c, row)
		} else if was, stored := known[key]; stored && derived.SameAlert(row, was) {
			continue
		}
		c.PutAlert(row, r.At)
		if row.EndedMs != 0 {
			c.DeleteOpenAlert(row, r.At)
		}
	}
}

// deleteElsewhere deletes an alert from the fleets and severities in which another instance may have found it, when it had
// read other records. The row of the device, which has one fleet and severity, does not say.
func (r *Result) deleteElsewhere(c *derived.Changes, is cassandra.Alert) {
	for _, fleet := range r.Fleets {
		if fleet != is.FleetID {
			other := is
			other.FleetID = fleet
			c.DeleteOpenAlert(other, r.At)
		}
		for _, severity := range telemetry.Severities {
			if fleet != is.FleetID || string(severity) != is.Severity {
				other := is
				other.FleetID, other.Severity = fleet, string(severity)
				c.DeleteFleetAlert(other, r.At)
			}
		}
	}
}

// replaceTrips deletes trips and stops that do not exist any more, and writes the ones that differ.
func (r *Result) replaceTrips(c *derived.Changes) {
	known := derived.ByKey(r.Existing.Trips, derived.KeyOfTrip)
	for key, was := range known {
		if _, stays := r.Trips[key]; !stays {
			c.DeleteTrip(r.DeviceID, was, r.At)
		}
	}
	for key, t := range r.Trips {
		row := derived.TripRow(t)
		if was, stored := known[key]; !stored || r.Whole || !derived.SameTrip(row, was) {
			c.PutTrip(r.DeviceID, row, r.At)
		}
	}
}

// replaceHours deletes what the device added to hours that are gone, and to hours of fleets that it was not in. It writes
// what the device adds now.
func (r *Result) replaceHours(c *derived.Changes, gone map[cassandra.FleetHour]bool) {
	stored := map[cassandra.Day][]string{}
	for _, day := range r.Existing.Days {
		stored[day.Day] = day.Fleets
	}
	for i, day := range r.Days {
		fleets := slices.Concat(day.Fleets, stored[day.Day])
		if _, known := stored[day.Day]; !known || i == len(r.Days)-1 || r.Shared || r.Whole {
			fleets = append(fleets, r.Fleets...) // its stored row lacks fleets of records that came since, or of other instances
		}
		slices.Sort(fleets)
		if fleets = slices.Compact(fleets); len(fleets) < 2 {
			continue // of another fleet, which the device was in before or after, nothing is touched
		}
		for _, fleet := range fleets {
			for h := range int64(24) {
				gone[cassandra.FleetHour{FleetID: fleet, HourMs: day.Day.Time().UnixMilli() + h*derived.HourMs}] = true
			}
		}
	}
	for key := range gone {
		if _, stays := r.Hours[key]; !stays {
			c.DeleteHour(key, r.DeviceID, r.At)
		}
	}
	for _, h := range r.Hours {
		c.PutHour(derived.HourRow(r.DeviceID, h), r.At)
	}
}

// AddOpenAlerts adds the open alerts to write, except manually resolved ones. notified reports whether receivers know of
// an alert.
func (r *Result) AddOpenAlerts(c *derived.Changes, notified func(derived.AlertKey) bool) {
	for key, a := range r.Alerts {
		if a.EndedMs == 0 && !r.Existing.ManuallyResolved[key] {
			row := derived.AlertRow(r.DeviceID, a)
			row.Notify = notified(key)
			c.PutOpenAlert(row, r.At+1)
		}
	}
}
