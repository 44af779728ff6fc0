package cassandra_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
)

// anAlert returns an open alert with every field set.
func anAlert(t *testing.T, fleet, device, opened string) cassandra.Alert {
	ms := at(t, opened)
	return cassandra.Alert{
		FleetID: fleet, DeviceID: device, Type: "speed_limit", Severity: "MEDIUM", OpenedMs: ms, StartedMs: ms - 10_000,
		Message: "93 km/h in depot", Peak: 93.5, Threshold: 70, Zone: "depot", Lat: 31.1, Lon: 120.1,
	}
}

func TestDeviceAlertsAreReadByMonth(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const device = "d-alerts"
	rows := []cassandra.Alert{
		anAlert(t, "f", device, "2025-12-31T23:59:59.999Z"),
		anAlert(t, "f", device, "2026-01-01T00:00:00Z"),
		anAlert(t, "g", device, "2026-03-05T06:07:08.009Z"),
	}
	rows[1].EndedMs, rows[1].Resolved = rows[1].OpenedMs+60_000, true
	for i := range rows {
		require.NoError(t, s.ApplyDeviceAlerts(ctx, cassandra.Put(readUs, rows[i])))
	}
	read := func(from, to string) []cassandra.Alert {
		found, err := s.DeviceAlerts(ctx, device, at(t, from), at(t, to))
		require.NoError(t, err)
		return found
	}
	require.Equal(t, rows, read("2025-12-31T23:59:59.999Z", "2026-03-05T06:07:08.009Z"), "oldest first, both ends included")
	require.Equal(t, rows[1:2], read("2026-01-01T00:00:00Z", "2026-03-05T06:07:08.008Z"))

	open := rows[1]
	open.EndedMs, open.Resolved, open.Severity = 0, false, "HIGH"
	require.NoError(t, s.ApplyDeviceAlerts(ctx, cassandra.Put(readUs+1, open)))
	require.NoError(t, s.ApplyDeviceAlerts(ctx, cassandra.Put(readUs, rows[1]))) // which readUs before
	require.Equal(t, []cassandra.Alert{open}, read("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), "a late record can remove the end")

	require.NoError(t, s.ApplyDeviceAlerts(ctx, cassandra.Remove(readUs+9, cassandra.Alert{DeviceID: device, OpenedMs: rows[0].OpenedMs, Type: "battery_low"}))) // a different alert
	require.NoError(t, s.ApplyDeviceAlerts(ctx, cassandra.Remove(readUs, cassandra.Alert{DeviceID: device, OpenedMs: open.OpenedMs, Type: open.Type})))          // before the last write
	require.NoError(t, s.ApplyDeviceAlerts(ctx, cassandra.Remove(readUs, cassandra.Alert{DeviceID: device, OpenedMs: rows[2].OpenedMs, Type: rows[2].Type})))
	require.Equal(t, []cassandra.Alert{rows[0], open}, read("2025-12-01T00:00:00Z", "2026-03-31T00:00:00Z"))
}

func TestFleetAlertLifecycle(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-lifecycle"
	read := func(a cassandra.Alert) []cassandra.Alert {
		found, err := s.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: a.Opened(), To: a.Opened()})
		require.NoError(t, err)
		return found
	}
	byHand := func(a cassandra.Alert, at int64) {
		require.NoError(t, s.ResolveAlert(ctx, &a, at))
	}
	t.Run("opened and ended", func(t *testing.T) {
		open := anAlert(t, fleet, "d1", "2026-11-24T08:00:00.001Z")
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, open)))
		require.Equal(t, []cassandra.Alert{open}, read(open))
		worse := open
		worse.Peak, worse.Message = 99, "99 km/h in depot"
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+10, worse)))
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+5, open)))
		require.Equal(t, []cassandra.Alert{worse}, read(open), "who readUs last wins")
		ended := worse
		ended.EndedMs, ended.Resolved = open.OpenedMs+90_000, true
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+20, ended)))
		require.Equal(t, []cassandra.Alert{ended}, read(open))
		alerts, err := s.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: time.UnixMilli(open.OpenedMs), To: time.UnixMilli(open.OpenedMs)})
		require.NoError(t, err)
		require.Len(t, alerts, 1, "dashboards read the same row")
		require.Equal(t, worse.Message, alerts[0].Message)
		require.True(t, alerts[0].Resolved)

		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Remove(readUs+19, ended)))
		require.Equal(t, []cassandra.Alert{ended}, read(open), "a deletion only removes earlier writes")
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Remove(readUs+20, ended)))
		require.Empty(t, read(open))
	})
	t.Run("resolved by hand", func(t *testing.T) {
		open := anAlert(t, fleet, "d2", "2026-11-24T08:00:00.002Z")
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, open)))
		byHand(open, readUs+10)
		resolved := open
		resolved.Resolved = true
		require.Equal(t, []cassandra.Alert{resolved}, read(open), "without an end")
		resolved.Peak, open.Peak = 120, 120
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+20, open)))
		require.Equal(t, []cassandra.Alert{resolved}, read(open), "a repeated write does not reopen it")
		ended := open
		ended.EndedMs = open.OpenedMs + 90_000
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+30, ended)))
		resolved.EndedMs = ended.EndedMs
		require.Equal(t, []cassandra.Alert{resolved}, read(open), "its end is stored")
	})
	t.Run("severity changed", func(t *testing.T) {
		mild := anAlert(t, fleet, "d3", "2026-11-24T08:00:00.003Z")
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, mild)))
		severe := mild
		severe.Severity = "HIGH"
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Remove(readUs+10, mild)))
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+10, severe)))
		require.Equal(t, []cassandra.Alert{severe}, read(mild))
	})
	t.Run("deleted and written again", func(t *testing.T) {
		// A late record removed the end: the row is deleted just before it is written again.
		ended := anAlert(t, fleet, "d4", "2026-11-24T08:00:00.004Z")
		open := ended
		ended.EndedMs, ended.Resolved = ended.OpenedMs+90_000, true
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, ended)))
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Remove(readUs+9, ended)))
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+10, open)))
		require.Equal(t, []cassandra.Alert{open}, read(open))
	})
	t.Run("fast device clock", func(t *testing.T) {
		open := anAlert(t, fleet, "d6", "2026-11-24T08:00:00.006Z")
		open.OpenedMs = readUs/1000 + 5*60*1000 // the most that records may be ahead
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, open)))
		byHand(open, readUs+5)
		resolved := open
		resolved.Resolved = true
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs+10, open)))
		require.Equal(t, []cassandra.Alert{resolved}, read(open), "resolved by hand before its event time")
		require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Remove(readUs+20, open)))
		require.Empty(t, read(open), "deleted completely")
	})
	t.Run("by time", func(t *testing.T) {
		var all []cassandra.Alert
		for i, severity := range cassandra.Severities {
			a := anAlert(t, fleet, "d5", "2026-11-23T00:00:00Z")
			a.Severity, a.OpenedMs = severity, a.OpenedMs+int64(i)
			all = append(all, a)
			require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, a)))
		}
		found, err := s.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: all[0].Opened(), To: all[2].Opened()})
		require.NoError(t, err)
		require.ElementsMatch(t, all, found)
		found, err = s.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: all[1].Opened(), To: all[2].Opened()})
		require.NoError(t, err)
		require.ElementsMatch(t, all[1:], found)
	})
}

func TestOpenAlerts(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-open"
	read := func() []cassandra.Alert {
		found, err := s.OpenAlerts(ctx, fleet)
		require.NoError(t, err)
		return found
	}
	require.Empty(t, read())
	one, other := anAlert(t, fleet, "d1", "2026-11-24T08:00:00Z"), anAlert(t, fleet, "d2", "2026-11-24T08:00:00Z")
	one.Notify = true
	battery := one
	battery.Type, battery.Notify = "battery_low", false
	for _, a := range []cassandra.Alert{one, other, battery} {
		require.NoError(t, s.ApplyOpenAlerts(ctx, cassandra.Put(readUs, a)))
	}
	require.Equal(t, []cassandra.Alert{battery, one, other}, read(), "by device and type")
	ofOne, err := s.OpenAlertsOfDevice(ctx, fleet, "d1")
	require.NoError(t, err)
	require.Equal(t, []cassandra.Alert{battery, one}, ofOne)

	// The alert has ended and another of its type has opened: the end is written just before.
	next := one
	next.OpenedMs += 60_000
	require.NoError(t, s.ApplyOpenAlerts(ctx, cassandra.Put(readUs+11, next)))
	require.NoError(t, s.DeleteOpenAlert(ctx, fleet, "d1", one.Type, readUs+10))
	require.NoError(t, s.ApplyOpenAlerts(ctx, cassandra.Put(readUs+1, one)))
	require.Equal(t, []cassandra.Alert{battery, next, other}, read(), "who readUs last wins, deletions included")
	require.NoError(t, s.DeleteOpenAlert(ctx, fleet, "d1", one.Type, readUs+11))
	require.Equal(t, []cassandra.Alert{battery, other}, read())
}

// An open alert that a node brings back after its tombstone was dropped has little time left: no process has written it since.
func TestOpenAlertThatComesBackIsNotListed(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-back"
	held, back := anAlert(t, fleet, "held", "2026-11-24T08:00:00Z"), anAlert(t, fleet, "back", "2026-11-24T08:00:00Z")
	require.NoError(t, s.ApplyOpenAlerts(ctx, cassandra.Put(readUs, held)))
	insert := func(leftS int) {
		require.NoError(t, schema.Exec(ctx, shared.config, quiet(), fmt.Sprintf(
			"INSERT INTO open_alerts_by_fleet (fleet_id, bucket, device_id, alert_type, ts, severity, message, started_at, peak, threshold, zone, lat, lon, notify)"+
				" VALUES ('%s', %d, '%s', '%s', %d, '%s', '%s', %d, 1, 1, '', 1, 1, true) USING TTL %d AND TIMESTAMP %d",
			fleet, cassandra.OpenAlertBucket(back.DeviceID), back.DeviceID, back.Type, back.OpenedMs, back.Severity, back.Message, back.StartedMs, leftS, back.OpenedMs*1000)))
	}
	rows := func() int {
		result, err := s.Select(ctx, fmt.Sprintf("SELECT device_id FROM open_alerts_by_fleet WHERE fleet_id = '%s' AND bucket = %d AND device_id = '%s'",
			fleet, cassandra.OpenAlertBucket(back.DeviceID), back.DeviceID), 10)
		require.NoError(t, err)
		return len(result.Rows)
	}
	all := func() []cassandra.Alert {
		found, err := s.OpenAlerts(ctx, fleet)
		require.NoError(t, err)
		return found
	}
	insert(30)
	require.Equal(t, 1, rows(), "the row is there")
	require.Equal(t, []cassandra.Alert{held}, all(), "it is not listed")
	found, err := s.OpenAlertsOfDevice(ctx, fleet, back.DeviceID)
	require.NoError(t, err)
	require.Empty(t, found)
	require.Eventually(t, func() bool { return rows() == 0 }, 2*time.Minute, 100*time.Millisecond, "it expires")

	insert(int(cassandra.OpenAlertTTL.Seconds()) / 3)
	require.NoError(t, s.ApplyOpenAlerts(ctx, cassandra.Put(readUs-1, held)))
	require.Len(t, all(), 2)
	for _, a := range all() {
		require.Equal(t, a.DeviceID == back.DeviceID, a.Expiring, "the other is to be written again")
	}
	require.NoError(t, s.DeleteOpenAlert(ctx, fleet, back.DeviceID, back.Type, readUs))
	insert(int(cassandra.OpenAlertTTL.Seconds()))
	require.Equal(t, []cassandra.Alert{held}, all(), "while its tombstone is there, it does not come back")
}

// Cassandra fails a read that meets more than 100,000 tombstones. The alerts of one fleet end in many partitions: with 100,000
// vehicles and every type of alert, each partition has about half as many.
func TestAlertsOfAFleetThatEndedAreSpread(t *testing.T) {
	s, _ := realStore(t)
	const fleet, vehicles = "fleet-ended", 1_600
	types := []string{"speed_limit", "battery_low", "temperature", "geofence_enter", "geofence_exit", "geofence_dwell", "device_offline", "device_stuck"}
	hour := at(t, "2026-11-24T08:00:00Z")
	alerts := map[int32][]cassandra.Mutation[cassandra.Alert]{}
	hours := map[int32][]cassandra.Mutation[cassandra.HourRow]{}
	for i := range vehicles {
		a := anAlert(t, fleet, fmt.Sprint("v", i), "2026-11-24T08:00:00Z")
		for _, a.Type = range types {
			bucket := cassandra.OpenAlertBucket(a.DeviceID)
			alerts[bucket] = append(alerts[bucket], cassandra.Remove(readUs+1, a)...)
		}
		bucket := cassandra.HourBucket(a.DeviceID)
		hours[bucket] = append(hours[bucket], cassandra.Remove(readUs+1, cassandra.HourRow{FleetID: fleet, HourMs: hour, DeviceID: a.DeviceID})...)
	}
	for bucket := range int32(cassandra.OpenAlertBuckets) {
		require.Less(t, float64(len(alerts[bucket]))/float64(vehicles)*100_000, 75_000.0, "bucket %d", bucket)
	}
	open := anAlert(t, fleet, "open", "2026-11-24T08:00:00Z")
	alerts[cassandra.OpenAlertBucket("open")] = append(alerts[cassandra.OpenAlertBucket("open")], cassandra.Put(readUs, open)...)
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	for _, rows := range alerts {
		for part := range slices.Chunk(rows, 100) {
			g.Go(func() error { return s.ApplyOpenAlerts(ctx, part) })
		}
	}
	for _, rows := range hours {
		for part := range slices.Chunk(rows, 100) {
			g.Go(func() error { return s.ApplyHours(ctx, part) })
		}
	}
	require.NoError(t, g.Wait())
	found, err := s.OpenAlerts(t.Context(), fleet)
	require.NoError(t, err)
	shares, err := s.Hours(t.Context(), fleet, hour)
	require.NoError(t, err)
	require.Equal(t, []cassandra.Alert{open}, found)
	require.Empty(t, shares)
}

func TestAlertsAndAnalyticsAreReadByDay(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	late := midnight()
	early := late.Add(-time.Millisecond)
	alert := func(ts time.Time, severity, kind string) cassandra.Alert {
		return cassandra.Alert{FleetID: "fleet-alerts", Severity: severity, OpenedMs: ts.UnixMilli(), DeviceID: "d", Type: kind, Message: kind + "!"}
	}
	speed, battery, offline := alert(late, "HIGH", "speed_limit"), alert(late, "HIGH", "battery_low"), alert(early, "LOW", "device_offline")
	require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, speed, battery)))
	require.NoError(t, s.ApplyFleetAlerts(ctx, cassandra.Put(readUs, offline)))
	require.NoError(t, s.ResolveAlert(ctx, &speed, readUs+1))
	speed.Resolved = true

	alerts, err := s.Alerts(ctx, cassandra.AlertQuery{FleetID: "fleet-alerts", From: early, To: late})
	require.NoError(t, err)
	require.Equal(t, []cassandra.Alert{battery, speed, offline}, alerts, "newest first across midnight, and alerts of one instant by type")
	alerts, err = s.Alerts(ctx, cassandra.AlertQuery{FleetID: "fleet-alerts", From: early, To: late, Severities: []string{"LOW"}})
	require.NoError(t, err)
	require.Len(t, alerts, 1)
	alerts, err = s.Alerts(ctx, cassandra.AlertQuery{FleetID: "fleet-alerts", From: early, To: late, Limit: 2})
	require.NoError(t, err)
	require.Len(t, alerts, 2)
	_, err = s.Alerts(ctx, cassandra.AlertQuery{FleetID: "fleet-alerts", From: early.AddDate(-3, 0, 0), To: late})
	require.ErrorContains(t, err, "at most 400")

	today := cassandra.DayOf(late.UnixMilli())
	hour := func(day cassandra.Day, h int32, mean *float64) cassandra.AnalyticsRow {
		return cassandra.AnalyticsRow{FleetID: "fleet-alerts", Day: day, Hour: h, TotalDistanceKm: 12.5, AvgSpeedKmh: mean, AlertsCount: 2, ActiveDevicesCount: 3}
	}
	require.NoError(t, s.ApplyAnalytics(ctx, cassandra.Put(1, hour(today, 1, nil), hour(today, 0, ptr(40.5)))))
	require.NoError(t, s.ApplyAnalytics(ctx, cassandra.Put(1, hour(today-1, 23, ptr(0.0)))))
	hours, err := s.Analytics(ctx, "fleet-alerts", today-1, today)
	require.NoError(t, err)
	require.Equal(t, []cassandra.AnalyticsRow{
		{FleetID: "fleet-alerts", Day: today - 1, Hour: 23, TotalDistanceKm: 12.5, AvgSpeedKmh: ptr(0.0), AlertsCount: 2, ActiveDevicesCount: 3},
		{FleetID: "fleet-alerts", Day: today, TotalDistanceKm: 12.5, AvgSpeedKmh: ptr(40.5), AlertsCount: 2, ActiveDevicesCount: 3},
		{FleetID: "fleet-alerts", Day: today, Hour: 1, TotalDistanceKm: 12.5, AlertsCount: 2, ActiveDevicesCount: 3},
	}, hours)
}
