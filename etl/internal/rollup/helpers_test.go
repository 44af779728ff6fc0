package rollup

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const degreesPerKm = 1 / 111.195080

// journey builds a device's records. Positions are in kilometers east and north of a position on the equator, where a
// degree of longitude is as long as one of latitude.
type journey struct {
	records []telemetry.Record
	fleet   string
	zone    string
	at      time.Time
	x, y    float64
	speed   telemetry.Optional[float64]
}

// from begins a journey at a time of day.
func from(clock string) *journey {
	at, err := time.Parse(time.DateTime, "2026-03-01 "+clock)
	if err != nil {
		panic(err)
	}
	return (&journey{fleet: "north", at: at}).add()
}

func (j *journey) add() *journey {
	j.records = append(j.records, telemetry.Record{
		DeviceID: "v", FleetID: j.fleet, Zone: j.zone, TimeMs: j.at.UnixMilli(),
		Lat: j.y * degreesPerKm, Lon: 10 + j.x*degreesPerKm, SpeedKmh: j.speed,
	})
	return j
}

// to adds a position so many km further east and north.
func (j *journey) to(after time.Duration, east, north float64) *journey {
	j.at, j.x, j.y = j.at.Add(after), j.x+east, j.y+north
	return j.add()
}

// drives goes east (or west, if km is negative) with a position at each interval.
func (j *journey) drives(km, kmh float64, every time.Duration) *journey {
	step := math.Copysign(kmh*every.Hours(), km)
	for n := int(math.Round(km / step)); n > 0; n-- {
		j.to(every, step, 0)
	}
	return j
}

// stands stays with a position at each interval.
func (j *journey) stands(d, every time.Duration) *journey {
	for ; d > 0; d -= every {
		j.to(every, 0, 0)
	}
	return j
}

// jitters stays with positions on a ring around it.
func (j *journey) jitters(d, every time.Duration, meters float64) *journey {
	x, y := j.x, j.y
	for i := 1; d > 0; d, i = d-every, i+1 {
		sin, cos := math.Sincos(float64(i) * 2.4)
		j.at, j.x, j.y = j.at.Add(every), x+cos*meters/1000, y+sin*meters/1000
		j.add()
	}
	j.x, j.y = x, y
	return j
}

// with sets the fleet and zone of the next records.
func (j *journey) with(fleet, zone string) *journey {
	j.fleet, j.zone = fleet, zone
	return j
}

type hourKey struct {
	fleet   string
	startMs int64
}

type tripKey struct {
	startMs int64
	kind    TripKind
}

// table is a sink that keeps rows as a store does.
type table struct {
	hours map[hourKey]Hour
	trips map[tripKey]Trip
}

func newTable() *table { return &table{map[hourKey]Hour{}, map[tripKey]Trip{}} }

func (t *table) Hour(h Hour) { t.hours[hourKey{h.FleetID, h.StartMs}] = h }
func (t *table) Trip(r Trip) { t.trips[tripKey{r.StartMs, r.Kind}] = r }

// finals is a table of the rows of Apply and AddAlert, which must be final.
type finals struct {
	*table
	t *testing.T
}

func (f finals) Hour(h Hour) {
	require.NotContains(f.t, f.hours, hourKey{h.FleetID, h.StartMs}, "each hour is final once")
	f.table.Hour(h)
}

func (f finals) Trip(r Trip) {
	require.False(f.t, r.Open, "a final row is not open")
	require.NotContains(f.t, f.trips, tripKey{r.StartMs, r.Kind}, "a trip ends once")
	f.table.Trip(r)
}

// withCurrent returns the table with the current rows of a state.
func (t *table) withCurrent(s *State) *table {
	all := newTable()
	for _, h := range t.hours {
		all.Hour(h)
	}
	for _, r := range t.trips {
		all.Trip(r)
	}
	s.Current(all)
	return all
}

func (t *table) sortedTrips() []Trip {
	rows := make([]Trip, 0, len(t.trips))
	for _, r := range t.trips {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b Trip) int { return cmp.Compare(a.StartMs, b.StartMs) })
	return rows
}

func (t *table) sortedHours() []Hour {
	rows := make([]Hour, 0, len(t.hours))
	for _, h := range t.hours {
		rows = append(rows, h)
	}
	slices.SortFunc(rows, func(a, b Hour) int {
		return cmp.Or(cmp.Compare(a.StartMs, b.StartMs), cmp.Compare(a.FleetID, b.FleetID))
	})
	return rows
}

func applyRecords(t *testing.T, records []telemetry.Record) *table {
	var s State
	done := finals{newTable(), t}
	for i := range records {
		s.Apply(&records[i], done)
	}
	return done.withCurrent(&s)
}

// roundTrip returns the state after a round trip through JSON.
func roundTrip(t *testing.T, s State) (back State) {
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &back))
	return back
}

func clock(ms int64) string {
	at := time.UnixMilli(ms).UTC()
	if day := at.Day(); day != 1 {
		return at.Format("02 15:04:05")
	}
	return at.Format(time.TimeOnly)
}

// lines formats a table's trips.
func (t *table) lines() (lines []string) {
	for _, r := range t.sortedTrips() {
		open := ""
		if r.Open {
			open = " open"
		}
		lines = append(lines, fmt.Sprintf("%s %s to %s%s: %.2f km, idle %v", r.Kind, clock(r.StartMs), clock(r.EndMs), open,
			r.DistanceKm, time.Duration(r.IdleMs)*time.Millisecond))
	}
	return lines
}
