package rollup

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// hourLines formats a table's hours.
func (t *table) hourLines() (lines []string) {
	for _, h := range t.sortedHours() {
		line := fmt.Sprintf("%s %s: %d positions, %.2f km, driving %v", h.FleetID, clock(h.StartMs), h.Records, h.DistanceKm, time.Duration(h.DrivingMs)*time.Millisecond)
		if h.SpeedCount > 0 {
			line += fmt.Sprintf(", %d speeds, mean %.1f, max %.1f", h.SpeedCount, h.SpeedSumKmh/float64(h.SpeedCount), h.MaxSpeedKmh.Value)
		} else if h.MaxSpeedKmh.Valid {
			line += " and a maximum speed without any speed"
		}
		if h.Alerts > 0 {
			line += fmt.Sprintf(", %d alerts", h.Alerts)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestHours(t *testing.T) {
	speeds := from("08:00:00").drives(1, 60, 30*sec)
	speeds.records[0].SpeedKmh = telemetry.Some(0.0)
	speeds.records[1].SpeedKmh = telemetry.Some(50.0)
	stood := from("08:00:00").to(mins, 1, 0)
	stood.records[1].SpeedKmh = telemetry.Some(0.0)
	for name, c := range map[string]struct {
		drive *journey
		want  []string
	}{
		"one position":     {from("08:59:59"), []string{"north 08:00:00: 1 positions, 0.00 km, driving 0s"}},
		"some have speeds": {speeds, []string{"north 08:00:00: 3 positions, 1.00 km, driving 1m0s, 2 speeds, mean 25.0, max 50.0"}},
		"a speed of 0":     {stood, []string{"north 08:00:00: 2 positions, 1.00 km, driving 1m0s, 1 speeds, mean 0.0, max 0.0"}},
		"a segment counts in the hour of its end": {from("08:59:00").to(60*sec, 1, 0).to(60*sec, 1, 0).to(2*time.Hour, 1, 0), []string{
			"north 08:00:00: 1 positions, 0.00 km, driving 0s",
			"north 09:00:00: 2 positions, 2.00 km, driving 2m0s",
			"north 11:00:00: 1 positions, 1.00 km, driving 0s",
		}},
		"the last millisecond": {from("08:59:00").to(59_999*time.Millisecond, 1, 0), []string{
			"north 08:00:00: 2 positions, 1.00 km, driving 59.999s",
		}},
		"midnight": {from("23:59:30").to(60*sec, 1, 0), []string{
			"north 23:00:00: 1 positions, 0.00 km, driving 0s",
			"north 02 00:00:00: 1 positions, 1.00 km, driving 1m0s",
		}},
		"driving is at 3 km/h": {from("08:00:00").to(60*sec, 0.0501, 0).to(60*sec, 0.0499, 0), []string{
			"north 08:00:00: 3 positions, 0.10 km, driving 1m0s",
		}},
		"a segment of more than ten minutes is not driving": {from("08:00:00").to(10*mins, 10, 0).to(10*mins+time.Millisecond, 10, 0), []string{
			"north 08:00:00: 3 positions, 20.00 km, driving 10m0s",
		}},
		"a jump has no length, and the next segment begins at its end": {from("08:00:00").to(60*sec, 4.99, 0).to(60*sec, 5.01, 0).to(60*sec, 1, 0), []string{
			"north 08:00:00: 4 positions, 5.99 km, driving 2m0s",
		}},
		"an hour of three fleets": {
			from("08:00:00").to(60*sec, 1, 0).with("south", "").to(60*sec, 2, 0).with("west", "").to(60*sec, 3, 0).with("north", "").to(60*sec, 4, 0).to(time.Hour, 0, 0), []string{
				"north 08:00:00: 3 positions, 1.00 km, driving 1m0s",
				"south 08:00:00: 1 positions, 0.00 km, driving 0s",
				"west 08:00:00: 1 positions, 0.00 km, driving 0s",
				"north 09:00:00: 1 positions, 0.00 km, driving 0s",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, applyRecords(t, c.drive.records).hourLines())
			assert.Equal(t, c.want, oracleTable(c.drive.records, nil).hourLines(), "the oracle agrees")
		})
	}
}

func TestAlertCountsInItsHour(t *testing.T) {
	j := from("08:00:00").to(mins, 1, 0)
	var s State
	done := finals{newTable(), t}
	for i := range j.records {
		s.Apply(&j.records[i], done)
	}
	at := func(clock string) int64 { return from(clock).at.UnixMilli() }
	s.AddAlert("north", at("08:01:00"), done)
	s.AddAlert("north", at("08:30:00"), done)
	s.AddAlert("south", at("08:40:00"), done) // from the time in that fleet
	s.AddAlert("north", at("10:00:00"), done)
	assert.Equal(t, []string{
		"north 08:00:00: 2 positions, 1.00 km, driving 1m0s, 2 alerts",
		"south 08:00:00: 0 positions, 0.00 km, driving 0s, 1 alerts",
	}, done.hourLines(), "an alert of a later hour makes these final")
	assert.Equal(t, at("08:01:00"), s.LastMs(), "an alert is not a position")

	j.to(2*time.Hour, 60, 0)
	s.Apply(&j.records[2], done)
	assert.Equal(t, []string{
		"north 08:00:00: 2 positions, 1.00 km, driving 1m0s, 2 alerts",
		"south 08:00:00: 0 positions, 0.00 km, driving 0s, 1 alerts",
		"north 10:00:00: 1 positions, 60.00 km, driving 0s, 1 alerts",
	}, done.withCurrent(&s).hourLines())
}

func TestAlertOfANewDeviceCounts(t *testing.T) {
	var s State
	s.AddAlert("north", from("08:00:00").at.UnixMilli(), newTable())
	assert.Equal(t, []string{"north 08:00:00: 0 positions, 0.00 km, driving 0s, 1 alerts"}, newTable().withCurrent(&s).hourLines())
	assert.Zero(t, s.LastMs())
}
