package rollup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	sec  = time.Second
	mins = time.Minute
)

func TestTripsAndStops(t *testing.T) {
	for name, c := range map[string]struct {
		drive *journey
		want  []string
	}{
		"one position is neither":                           {from("08:00:00"), nil},
		"two positions close in time and space are neither": {from("08:00:00").to(60*sec, 0.05, 0), nil},
		"two positions apart are a trip": {from("08:00:00").to(60*sec, 1, 0), []string{
			"trip 08:00:00 to 08:01:00 open: 1.00 km, idle 0s",
		}},
		"two close positions 180 s apart are a stop": {from("08:00:00").to(180*sec, 0.05, 0), []string{
			"stop 08:00:00 to 08:03:00 open: 0.05 km, idle 0s",
		}},
		"two positions with a gap and a distance between them are neither": {from("08:00:00").to(61*mins, 5, 0), nil},
		"a stop begins at its first position and ends at its last": {
			from("08:00:00").stands(10*mins, 10*sec).drives(6, 45, 10*sec).stands(4*mins, 10*sec).drives(3, 45, 10*sec), []string{
				"stop 08:00:00 to 08:10:10: 0.13 km, idle 0s", // 125 m every 10 s: the first position lies within the 200 m
				"trip 08:10:10 to 08:18:00: 5.88 km, idle 0s",
				"stop 08:18:00 to 08:22:10: 0.13 km, idle 0s",
				"trip 08:22:10 to 08:26:00 open: 2.88 km, idle 0s",
			},
		},
		"red lights are idle time of a trip": {
			from("08:00:00").drives(3, 54, 10*sec).stands(90*sec, 10*sec).drives(3, 54, 10*sec).stands(120*sec, 10*sec).drives(3, 54, 10*sec), []string{
				"trip 08:00:00 to 08:13:30 open: 9.00 km, idle 3m30s",
			},
		},
		"three minutes at a red light are a stop": {
			from("08:00:00").drives(3, 90, 10*sec).stands(180*sec, 10*sec).drives(6, 90, 10*sec), []string{
				"trip 08:00:00 to 08:02:00: 3.00 km, idle 0s",
				"stop 08:02:00 to 08:05:00: 0.00 km, idle 0s",
				"trip 08:05:00 to 08:09:00 open: 6.00 km, idle 0s",
			},
		},
		"a red light near a stop does not hide the stop": {
			from("08:00:00").drives(3, 90, 10*sec).stands(60*sec, 10*sec).to(10*sec, 0.25, 0).stands(5*mins, 10*sec), []string{
				"trip 08:00:00 to 08:03:10: 3.25 km, idle 1m0s",
				"stop 08:03:10 to 08:08:10 open: 0.00 km, idle 0s",
			},
		},
		"hours of jitter are one stop": {from("08:00:00").jitters(9*time.Hour, 30*sec, 20), []string{
			"stop 08:00:00 to 17:00:00 open: 40.25 km, idle 0s",
		}},
		"hours of jitter at the edge of the radius are one stop": {
			from("08:00:00").drives(3, 90, 10*sec).to(14*sec, 0.19, 0).jitters(9*time.Hour, 30*sec, 20), []string{
				"trip 08:00:00 to 08:03:44: 3.28 km, idle 30s", // until a position with the others within 200 m
				"stop 08:03:44 to 17:02:14 open: 40.15 km, idle 0s",
			},
		},
		"crawling out of the radius and standing there continues the stop": {
			from("08:00:00").stands(10*mins, 10*sec).drives(0.25, 15, 10*sec).stands(1*time.Hour, 10*sec), []string{
				"stop 08:00:00 to 09:11:00 open: 0.25 km, idle 0s",
			},
		},
		"an outlier is not a trip": {
			from("08:00:00").stands(10*mins, 10*sec).to(10*sec, 0.6, 0).to(10*sec, -0.6, 0).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 08:20:20 open: 1.20 km, idle 0s",
			},
		},
		"a drive around the block is a trip if it takes more than three minutes": {
			from("08:00:00").stands(10*mins, 10*sec).drives(1.5, 60, 10*sec).drives(-1.5, 60, 10*sec).
				stands(10*mins, 10*sec).drives(2.5, 60, 10*sec).drives(-2.5, 60, 10*sec).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 08:23:10: 3.17 km, idle 0s",
				"trip 08:23:10 to 08:28:00: 4.83 km, idle 0s",
				"stop 08:28:00 to 08:38:00 open: 0.00 km, idle 0s",
			},
		},
		"a short drive to another stop is a trip": {
			from("08:00:00").stands(10*mins, 10*sec).drives(0.6, 90, 6*sec).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 08:10:06: 0.15 km, idle 0s",
				"trip 08:10:06 to 08:10:24: 0.45 km, idle 0s",
				"stop 08:10:24 to 08:20:24 open: 0.00 km, idle 0s",
			},
		},
		"the stop continues while the vehicle may come back": {
			from("08:00:00").stands(10*mins, 10*sec).drives(1.5, 60, 10*sec), []string{
				"stop 08:00:00 to 08:11:30 open: 1.50 km, idle 0s",
			},
		},
		"a few positions per hour suffice": {
			from("08:00:00").stands(30*mins, 10*mins).drives(30, 60, 10*mins).stands(30*mins, 10*mins), []string{
				"stop 08:00:00 to 08:30:00: 0.00 km, idle 0s",
				"trip 08:30:00 to 09:00:00: 30.00 km, idle 0s",
				"stop 09:00:00 to 09:30:00 open: 0.00 km, idle 0s",
			},
		},
		"a gap of an hour is bridged": {from("08:00:00").drives(3, 90, 10*sec).to(60*mins, 40, 0), []string{
			"trip 08:00:00 to 09:02:00 open: 43.00 km, idle 0s",
		}},
		"a trip ends before a longer gap": {from("08:00:00").drives(3, 90, 10*sec).to(61*mins, 40, 0).drives(3, 90, 10*sec), []string{
			"trip 08:00:00 to 08:02:00: 3.00 km, idle 0s",
			"trip 09:03:00 to 09:05:00 open: 3.00 km, idle 0s",
		}},
		"a stop ends before a longer gap with movement": {
			from("08:00:00").stands(10*mins, 10*sec).to(12*time.Hour, 40, 0).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 08:10:00: 0.00 km, idle 0s",
				"stop 20:10:00 to 20:20:00 open: 0.00 km, idle 0s",
			},
		},
		"a stop continues across a longer gap without movement": {
			from("08:00:00").stands(10*mins, 10*sec).to(12*time.Hour, 0.1, 0).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 20:20:00 open: 0.10 km, idle 0s",
			},
		},
		"a gap at the end of a trip is a stop": {
			from("08:00:00").drives(3, 90, 10*sec).to(12*time.Hour, 0.05, 0).drives(3, 90, 10*sec).drives(3, 90, 10*sec), []string{
				"trip 08:00:00 to 08:02:00: 3.00 km, idle 0s",
				"stop 08:02:00 to 20:02:00: 0.05 km, idle 0s",
				"trip 20:02:00 to 20:06:00 open: 6.00 km, idle 0s",
			},
		},
		"a gap while the vehicle leaves a stop": {
			from("08:00:00").stands(10*mins, 10*sec).drives(1.5, 60, 10*sec).to(2*time.Hour, 40, 0), []string{
				"stop 08:00:00 to 08:10:10: 0.17 km, idle 0s",
				"trip 08:10:10 to 08:11:30: 1.33 km, idle 0s",
			},
		},
		"a ferry with positions is a trip, and without positions it is neither": {
			from("08:00:00").stands(10*mins, mins).drives(30, 30, 5*mins).stands(10*mins, mins).to(2*time.Hour, 60, 0).stands(10*mins, mins), []string{
				"stop 08:00:00 to 08:10:00: 0.00 km, idle 0s",
				"trip 08:10:00 to 09:10:00: 30.00 km, idle 0s",
				"stop 09:10:00 to 09:20:00: 0.00 km, idle 0s",
				"stop 11:20:00 to 11:30:00 open: 0.00 km, idle 0s",
			},
		},
		"a single outlier across the world has no effect": {
			from("08:00:00").stands(10*mins, 10*sec).to(10*sec, 4000, 300).to(10*sec, -4000, -300).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 08:20:20 open: 0.00 km, idle 0s",
			},
		},
		"several unrelated outliers have no effect": {
			from("08:00:00").drives(3, 90, 10*sec).to(10*sec, 4000, 300).to(10*sec, 500, -900).to(10*sec, -4500, 600).drives(3, 90, 10*sec), []string{
				"trip 08:00:00 to 08:04:30 open: 6.00 km, idle 30s",
			},
		},
		"a suspect position is not part of the stop": {from("08:00:00").stands(10*mins, 10*sec).to(10*sec, 4000, 300), []string{
			"stop 08:00:00 to 08:10:00 open: 0.00 km, idle 0s",
		}},
		"a jump with positions after it begins another stop": {
			from("08:00:00").stands(10*mins, 10*sec).to(10*sec, 400, 300).stands(10*mins, 10*sec), []string{
				"stop 08:00:00 to 08:10:00: 0.00 km, idle 0s",
				"stop 08:10:10 to 08:20:10 open: 0.00 km, idle 0s",
			},
		},
		"a gap after a jump": {
			from("08:00:00").drives(3, 90, 10*sec).to(10*sec, 4000, 300).to(2*time.Hour, 500, 0).stands(10*mins, 10*sec), []string{
				"trip 08:00:00 to 08:02:00: 3.00 km, idle 0s",
				"stop 10:02:10 to 10:12:10 open: 0.00 km, idle 0s",
			},
		},
		"midnight has no effect": {
			from("23:00:00").stands(50*mins, 10*sec).drives(30, 90, 10*sec).stands(5*mins, 10*sec), []string{
				"stop 23:00:00 to 23:50:00: 0.00 km, idle 0s",
				"trip 23:50:00 to 02 00:10:00: 30.00 km, idle 0s",
				"stop 02 00:10:00 to 02 00:15:00 open: 0.00 km, idle 0s",
			},
		},
		"a change of fleet begins another trip": {
			from("08:00:00").drives(3, 90, 10*sec).with("south", "").drives(3, 90, 10*sec).with("north", "").stands(5*mins, 10*sec), []string{
				"trip 08:00:00 to 08:02:00: 3.00 km, idle 0s",
				"trip 08:02:10 to 08:04:00: 2.75 km, idle 0s",
				"stop 08:04:10 to 08:09:00 open: 0.00 km, idle 0s",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := applyRecords(t, c.drive.records)
			assert.Equal(t, c.want, got.lines())
			assert.Equal(t, c.want, oracleTable(c.drive.records, nil).lines(), "the oracle agrees")
			for _, h := range got.sortedHours() {
				assert.Positive(t, h.Records)
			}
		})
	}
}

func TestTripHasZonesAndMaximumSpeed(t *testing.T) {
	j := from("08:00:00").with("north", "depot").stands(5*mins, 10*sec).drives(3, 90, 10*sec)
	j.with("north", "harbor").stands(5*mins, 10*sec)
	trip := applyRecords(t, j.records).sortedTrips()[1]
	assert.Equal(t, KindTrip, trip.Kind)
	assert.Equal(t, "north", trip.FleetID)
	assert.Equal(t, "depot", trip.StartZone)
	assert.Equal(t, "depot", trip.EndZone, "the trip ends at the first position within 200 m of the stop, outside of that zone")
	assert.InDelta(t, 10, trip.StartLon, 1e-9)
	assert.InDelta(t, 10+3*degreesPerKm, trip.EndLon, 1e-9)
	assert.True(t, trip.MaxSpeedKmh.Valid)
	assert.InDelta(t, 90, trip.MaxSpeedKmh.Value, 0.01, "without a speed, that of the fastest segment")

	j.records[33].SpeedKmh = telemetry.Some(12.5)
	j.records[34].SpeedKmh = telemetry.Some(7.5)
	trip = applyRecords(t, j.records).sortedTrips()[1]
	assert.Equal(t, telemetry.Some(12.5), trip.MaxSpeedKmh, "the speed of the records that have one")
}

func TestOpenFromMsIsTheStartOfTheOpenTripOrStop(t *testing.T) {
	var s State
	assert.Zero(t, s.OpenFromMs())
	assert.Zero(t, s.LastMs())
	s.Current(finals{newTable(), t}) // finals rejects open rows
	j := from("08:00:00").stands(10*mins, 10*sec).drives(6, 45, 10*sec).stands(4*mins, 10*sec)
	seen := map[string]bool{}
	for i := range j.records {
		s.Apply(&j.records[i], newTable())
		require.Equal(t, j.records[i].TimeMs, s.LastMs())
		seen[clock(s.OpenFromMs())] = true
	}
	assert.Equal(t, map[string]bool{"08:00:00": true, "08:10:10": true, "08:18:00": true}, seen)

	far := from("09:00:00").to(sec, 4000, 0).records[1]
	s.Apply(&far, newTable())
	assert.Equal(t, "09:00:01", clock(s.LastMs()), "a suspect position counts")
	assert.Equal(t, "08:18:00", clock(s.OpenFromMs()))
}
