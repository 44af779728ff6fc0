package cassandra

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// looked is the time, in µs, of the first derivation of these tests, later than everything they derive from; later
// derivations count up from it.
const looked = int64(1_796_000_000_000_000)

func at(t *testing.T, text string) int64 {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return parsed.UnixMilli()
}

func TestTheDaysOfADeviceAreItsStates(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const device = "d-days"
	today := DayOf(time.Now().UnixMilli())
	_, found, err := s.LastDeviceDay(ctx, device, today)
	require.NoError(t, err)
	require.False(t, found)
	none, err := s.DeviceDays(ctx, device, 0)
	require.NoError(t, err)
	require.Empty(t, none)

	write := func(day Day, state, rules string, writeTimeUs int64, fleets ...string) {
		require.NoError(t, s.WriteDeviceDay(ctx, device, DeviceDay{Day: day, State: []byte(state), Rules: rules, Fleets: fleets}, writeTimeUs))
	}
	write(today-3, "old", "r1", looked, "north")
	write(today-1, "first", "r1", looked+10, "north")
	write(today-1, "second", "r2", looked+20, "south")
	write(today-1, "late", "r0", looked+15, "east") // looked before the second did, came after it
	write(today, "now", "r2", looked+30)            // it knows of no fleet

	want := []DeviceDay{
		{Day: today - 3, State: []byte("old"), Rules: "r1", Fleets: []string{"north"}, WriteTimeUs: looked},
		{Day: today - 1, State: []byte("second"), Rules: "r2", Fleets: []string{"east", "north", "south"}, WriteTimeUs: looked + 20},
		{Day: today, State: []byte("now"), Rules: "r2", WriteTimeUs: looked + 30},
	}
	days, err := s.DeviceDays(ctx, device, today-3)
	require.NoError(t, err)
	require.Equal(t, want, days, "oldest first; who looked last wins, and fleets are only ever added to")
	days, err = s.DeviceDays(ctx, device, today-2)
	require.NoError(t, err)
	require.Equal(t, want[1:], days)

	for day, state := range map[Day]string{today + 1: "now", today: "now", today - 1: "second", today - 2: "old"} {
		before, found, err := s.LastDeviceDay(ctx, device, day)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, state, string(before.State), "the latest up to %s", day)
	}
	_, found, err = s.LastDeviceDay(ctx, device, today-4)
	require.NoError(t, err)
	require.False(t, found)
}

func TestTheFixesOfADayComeOldestFirstWithAllThatTheyHave(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	day := DayOf(midnight().UnixMilli()) - 1
	first := day.Time().UnixMilli()
	row := func(ms int64) TelemetryRow {
		return TelemetryRow{TsMs: ms, FleetID: "f", Lat: 1, Lon: 2, Zone: "unknown", WriteTimeUs: ms * 1000, TTLSeconds: 3600}
	}
	full := row(first + 1)
	full.SpeedKmh, full.HeadingDeg, full.BatteryPct, full.TempC, full.AccuracyM = ptr(62.5), ptr(359.9), ptr(int32(7)), ptr(-18.25), ptr(4.5)
	require.NoError(t, s.WriteHistory(ctx, "d-fixes", day, []TelemetryRow{row(first + msPerDay - 1), full, row(first)}))
	require.NoError(t, s.WriteHistory(ctx, "d-fixes", day+1, []TelemetryRow{row(first + msPerDay)}))
	fixes, err := s.Positions(ctx, "d-fixes", day)
	require.NoError(t, err)
	bare := Telemetry{DeviceID: "d-fixes", FleetID: "f", Lat: 1, Lon: 2, Zone: "unknown"}
	begin, second, end := bare, bare, bare
	begin.Ts, second.Ts, end.Ts = time.UnixMilli(first).UTC(), time.UnixMilli(first+1).UTC(), time.UnixMilli(first+msPerDay-1).UTC()
	second.SpeedKmh, second.HeadingDeg, second.BatteryPct, second.TempC, second.AccuracyM = full.SpeedKmh, full.HeadingDeg, full.BatteryPct, full.TempC, full.AccuracyM
	require.Equal(t, []Telemetry{begin, second, end}, fixes)
	fixes, err = s.Positions(ctx, "d-fixes", day-1)
	require.NoError(t, err)
	require.Empty(t, fixes)
}

func TestWhatDevicesAddToAnHour(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-hours"
	hour := at(t, "2026-11-24T23:00:00Z")
	row := func(device string, km float64) HourRow {
		return HourRow{
			FleetID: fleet, HourMs: hour, DeviceID: device, DistanceKm: km, SpeedSumKmh: 120.5, SpeedCount: 3, Records: 4_000_000_000,
			MaxSpeedKmh: 61.25, DrivingS: 59.875, Alerts: 2,
		}
	}
	read := func() []HourRow {
		rows, err := s.Hours(ctx, fleet, hour)
		require.NoError(t, err)
		return rows
	}
	require.Empty(t, read())
	require.NoError(t, s.WriteHours(ctx, []HourRow{row("b", 2), row("a", 1)}, looked))
	require.NoError(t, s.WriteHours(ctx, []HourRow{row("c", 3)}, looked))
	require.Equal(t, []HourRow{row("a", 1), row("b", 2), row("c", 3)}, read(), "sorted by device")

	require.NoError(t, s.WriteHours(ctx, []HourRow{row("a", 9)}, looked-1))
	require.NoError(t, s.WriteHours(ctx, []HourRow{row("b", 8)}, looked+1))
	require.NoError(t, s.DeleteHour(ctx, fleet, hour, "b", looked)) // it looked before the latest did
	require.NoError(t, s.DeleteHour(ctx, fleet, hour, "c", looked))
	require.Equal(t, []HourRow{row("a", 1), row("b", 8)}, read(), "who looked last wins, deletions included")
	require.NoError(t, s.WriteHours(ctx, []HourRow{row("c", 7)}, looked+1))
	require.Equal(t, []HourRow{row("a", 1), row("b", 8), row("c", 7)}, read())

	other, err := s.Hours(ctx, fleet, hour+3_600_000)
	require.NoError(t, err)
	require.Empty(t, other)
}

func TestTheFiguresOfAnHourCanBecomeFewer(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-figures"
	hour := at(t, "2026-11-24T23:00:00Z")
	day := DayOf(hour)
	full := AnalyticsRow{
		FleetID: fleet, Day: day, Hour: 23, TotalDistanceKm: 12.5, AvgSpeedKmh: ptr(40.5), AlertsCount: 2, ActiveDevicesCount: 3,
		RecordsCount: ptr(int64(77)), MaxSpeedKmh: ptr(61.25), DrivingS: ptr(int64(59)),
	}
	write := func(r AnalyticsRow, writeTimeUs int64) {
		r.WriteTimeUs = writeTimeUs
		require.NoError(t, s.WriteAnalytics(ctx, []AnalyticsRow{r}))
	}
	read := func() []AnalyticsRow {
		rows, err := s.AnalyticsRows(ctx, fleet, day)
		require.NoError(t, err)
		return rows
	}
	write(full, looked)
	require.Equal(t, []AnalyticsRow{full}, read())
	silent := full
	silent.AvgSpeedKmh, silent.MaxSpeedKmh = nil, nil
	write(silent, looked+1)
	require.Equal(t, []AnalyticsRow{silent}, read(), "a mean of which nothing is left is taken away")
	write(full, looked)
	require.Equal(t, []AnalyticsRow{silent}, read())
	require.NoError(t, s.DeleteAnalytics(ctx, fleet, hour, looked))
	require.Equal(t, []AnalyticsRow{silent}, read(), "a deletion takes what was written up to its time")
	require.NoError(t, s.DeleteAnalytics(ctx, fleet, hour+10, looked+1))
	require.Empty(t, read(), "any instant of the hour names it")
}

func TestTripsAreKeptByTheMonthTheyBeginIn(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const device = "d-trips"
	trip := func(start string, kind string) TripRow {
		from := at(t, start)
		return TripRow{
			StartMs: from, EndMs: from + 600_000, Kind: kind, FleetID: "f", DistanceKm: 3.5, IdleS: 12.25,
			StartLat: 31.1, StartLon: 120.1, EndLat: 31.2, EndLon: 120.2, StartZone: "depot", EndZone: "unknown",
		}
	}
	rows := []TripRow{
		trip("2025-12-31T23:59:59.999Z", "trip"), // it goes on into the new year
		trip("2026-01-01T00:00:00Z", "stop"),
		trip("2026-01-01T00:00:00Z", "trip"), // the same instant: another kind is another row
		trip("2026-01-31T23:00:00Z", "trip"),
		trip("2026-03-01T00:00:00Z", "trip"), // with an empty month between
	}
	rows[1].MaxSpeedKmh = ptr(0.0)
	rows[4].Open, rows[4].MaxSpeedKmh = true, ptr(51.5)
	require.NoError(t, s.WriteTrips(ctx, device, rows, looked))
	read := func(from, to string) []TripRow {
		found, err := s.Trips(ctx, device, at(t, from), at(t, to))
		require.NoError(t, err)
		slices.SortStableFunc(found, func(a, b TripRow) int {
			if a.StartMs == b.StartMs {
				return strings.Compare(a.Kind, b.Kind)
			}
			return 0
		})
		return found
	}
	require.Equal(t, rows, read("2025-12-01T00:00:00Z", "2026-03-31T00:00:00Z"), "oldest first, over months")
	require.Equal(t, rows[1:4], read("2026-01-01T00:00:00Z", "2026-01-31T23:00:00Z"), "both ends are included")
	require.Equal(t, rows[:3], read("2025-12-31T23:59:59.999Z", "2026-01-01T00:00:00Z"))
	require.Empty(t, read("2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z"))

	closed := rows[4]
	closed.Open, closed.EndMs, closed.MaxSpeedKmh = false, closed.EndMs+1, nil
	require.NoError(t, s.WriteTrips(ctx, device, []TripRow{closed}, looked+5))
	require.NoError(t, s.WriteTrips(ctx, device, []TripRow{rows[4]}, looked+4))
	require.Equal(t, []TripRow{closed}, read("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"), "who looked last wins, also where it has no speed any more")

	require.NoError(t, s.DeleteTrip(ctx, device, rows[0].StartMs, "trip", looked))
	require.NoError(t, s.DeleteTrip(ctx, device, rows[2].StartMs, "trip", looked+1))
	require.NoError(t, s.DeleteTrip(ctx, device, closed.StartMs, "trip", looked+4)) // before it was closed
	require.Equal(t, []TripRow{rows[1], rows[3], closed}, read("2025-12-01T00:00:00Z", "2026-03-31T00:00:00Z"))
}

// anAlert is one with everything set, open.
func anAlert(t *testing.T, fleet, device, opened string) Alert {
	ms := at(t, opened)
	return Alert{
		FleetID: fleet, DeviceID: device, Type: "speed_limit", Severity: "MEDIUM", OpenedMs: ms, StartedMs: ms - 10_000,
		Message: "93 km/h in depot", Peak: 93.5, Threshold: 70, Zone: "depot", Lat: 31.1, Lon: 120.1,
	}
}

func TestTheAlertsOfADeviceAreKeptByTheMonthTheyWereRaisedIn(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const device = "d-alerts"
	rows := []Alert{
		anAlert(t, "f", device, "2025-12-31T23:59:59.999Z"),
		anAlert(t, "f", device, "2026-01-01T00:00:00Z"),
		anAlert(t, "g", device, "2026-03-05T06:07:08.009Z"),
	}
	rows[1].EndedMs, rows[1].Resolved = rows[1].OpenedMs+60_000, true
	for i := range rows {
		require.NoError(t, s.WriteDeviceAlert(ctx, &rows[i], looked))
	}
	read := func(from, to string) []Alert {
		found, err := s.DeviceAlerts(ctx, device, at(t, from), at(t, to))
		require.NoError(t, err)
		return found
	}
	require.Equal(t, rows, read("2025-12-31T23:59:59.999Z", "2026-03-05T06:07:08.009Z"), "oldest first, both ends included")
	require.Equal(t, rows[1:2], read("2026-01-01T00:00:00Z", "2026-03-05T06:07:08.008Z"))

	open := rows[1]
	open.EndedMs, open.Resolved, open.Severity = 0, false, "HIGH"
	require.NoError(t, s.WriteDeviceAlert(ctx, &open, looked+1))
	require.NoError(t, s.WriteDeviceAlert(ctx, &rows[1], looked)) // which looked before
	require.Equal(t, []Alert{open}, read("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), "a late record can take an end away")

	require.NoError(t, s.DeleteDeviceAlert(ctx, device, rows[0].OpenedMs, "battery_low", looked+9)) // another alert
	require.NoError(t, s.DeleteDeviceAlert(ctx, device, open.OpenedMs, open.Type, looked))          // before it was written again
	require.NoError(t, s.DeleteDeviceAlert(ctx, device, rows[2].OpenedMs, rows[2].Type, looked))
	require.Equal(t, []Alert{rows[0], open}, read("2025-12-01T00:00:00Z", "2026-03-31T00:00:00Z"))
}

func TestAnAlertsLifeIsKeptAmongItsFleets(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-lives"
	read := func(a Alert) []Alert {
		found, err := s.FleetAlerts(ctx, fleet, DayOf(a.OpenedMs), a.OpenedMs, a.OpenedMs)
		require.NoError(t, err)
		return found
	}
	byHand := func(a Alert, at int64) {
		require.NoError(t, s.ResolveAlert(ctx, &a, at))
	}
	t.Run("opened and ended", func(t *testing.T) {
		open := anAlert(t, fleet, "d1", "2026-11-24T08:00:00.001Z")
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked))
		require.Equal(t, []Alert{open}, read(open))
		worse := open
		worse.Peak, worse.Message = 99, "99 km/h in depot"
		require.NoError(t, s.WriteFleetAlert(ctx, &worse, looked+10))
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked+5))
		require.Equal(t, []Alert{worse}, read(open), "who looked last wins")
		ended := worse
		ended.EndedMs, ended.Resolved = open.OpenedMs+90_000, true
		require.NoError(t, s.WriteFleetAlert(ctx, &ended, looked+20))
		require.Equal(t, []Alert{ended}, read(open))
		alerts, err := s.Alerts(ctx, AlertQuery{FleetID: fleet, From: time.UnixMilli(open.OpenedMs), To: time.UnixMilli(open.OpenedMs)})
		require.NoError(t, err)
		require.Len(t, alerts, 1, "screens see it, too")
		require.Equal(t, worse.Message, alerts[0].Message)
		require.True(t, alerts[0].Resolved)

		require.NoError(t, s.DeleteFleetAlert(ctx, &ended, looked+19))
		require.Equal(t, []Alert{ended}, read(open), "a deletion takes what was written up to its time")
		require.NoError(t, s.DeleteFleetAlert(ctx, &ended, looked+20))
		require.Empty(t, read(open))
	})
	t.Run("resolved by hand", func(t *testing.T) {
		open := anAlert(t, fleet, "d2", "2026-11-24T08:00:00.002Z")
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked))
		byHand(open, looked+10)
		resolved := open
		resolved.Resolved = true
		require.Equal(t, []Alert{resolved}, read(open), "with no end")
		resolved.Peak, open.Peak = 120, 120
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked+20))
		require.Equal(t, []Alert{resolved}, read(open), "that it is open, written again, does not open it again")
		ended := open
		ended.EndedMs = open.OpenedMs + 90_000
		require.NoError(t, s.WriteFleetAlert(ctx, &ended, looked+30))
		resolved.EndedMs = ended.EndedMs
		require.Equal(t, []Alert{resolved}, read(open), "and its end comes all the same")
	})
	t.Run("of another severity", func(t *testing.T) {
		mild := anAlert(t, fleet, "d3", "2026-11-24T08:00:00.003Z")
		require.NoError(t, s.WriteFleetAlert(ctx, &mild, looked))
		grave := mild
		grave.Severity = "HIGH"
		require.NoError(t, s.DeleteFleetAlert(ctx, &mild, looked+10))
		require.NoError(t, s.WriteFleetAlert(ctx, &grave, looked+10))
		require.Equal(t, []Alert{grave}, read(mild))
	})
	t.Run("taken back and written again", func(t *testing.T) {
		// A late record has taken its end away: the row goes just before it is written again.
		ended := anAlert(t, fleet, "d4", "2026-11-24T08:00:00.004Z")
		open := ended
		ended.EndedMs, ended.Resolved = ended.OpenedMs+90_000, true
		require.NoError(t, s.WriteFleetAlert(ctx, &ended, looked))
		require.NoError(t, s.DeleteFleetAlert(ctx, &ended, looked+9))
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked+10))
		require.Equal(t, []Alert{open}, read(open))
	})
	t.Run("by a clock that is ahead", func(t *testing.T) {
		open := anAlert(t, fleet, "d6", "2026-11-24T08:00:00.006Z")
		open.OpenedMs = looked/1000 + 5*60*1000 // as far as records may be
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked))
		byHand(open, looked+5)
		resolved := open
		resolved.Resolved = true
		require.NoError(t, s.WriteFleetAlert(ctx, &open, looked+10))
		require.Equal(t, []Alert{resolved}, read(open), "resolved by hand before it was raised, by our clock")
		require.NoError(t, s.DeleteFleetAlert(ctx, &open, looked+20))
		require.Empty(t, read(open), "it was none, and nothing stays of it")
	})
	t.Run("by the time they were raised", func(t *testing.T) {
		day := DayOf(at(t, "2026-11-23T00:00:00Z"))
		var all []Alert
		for i, severity := range Severities {
			a := anAlert(t, fleet, "d5", "2026-11-23T00:00:00Z")
			a.Severity, a.OpenedMs = severity, a.OpenedMs+int64(i)
			all = append(all, a)
			require.NoError(t, s.WriteFleetAlert(ctx, &a, looked))
		}
		found, err := s.FleetAlerts(ctx, fleet, day, all[0].OpenedMs, all[2].OpenedMs)
		require.NoError(t, err)
		require.ElementsMatch(t, all, found)
		found, err = s.FleetAlerts(ctx, fleet, day, all[1].OpenedMs, all[2].OpenedMs)
		require.NoError(t, err)
		require.ElementsMatch(t, all[1:], found)
	})
}

func TestTheOpenAlertsOfAFleet(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-open"
	read := func() []Alert {
		found, err := s.OpenAlerts(ctx, fleet)
		require.NoError(t, err)
		return found
	}
	require.Empty(t, read())
	one, other := anAlert(t, fleet, "d1", "2026-11-24T08:00:00Z"), anAlert(t, fleet, "d2", "2026-11-24T08:00:00Z")
	one.Notify = true
	battery := one
	battery.Type, battery.Notify = "battery_low", false
	for _, a := range []Alert{one, other, battery} {
		require.NoError(t, s.WriteOpenAlert(ctx, &a, looked))
	}
	require.Equal(t, []Alert{battery, one, other}, read(), "by device and type, with who is to be told")
	ofOne, err := s.OpenAlertsOfDevice(ctx, fleet, "d1")
	require.NoError(t, err)
	require.Equal(t, []Alert{battery, one}, ofOne)

	// The alert has ended and another of its type begun: the end is written just before.
	next := one
	next.OpenedMs += 60_000
	require.NoError(t, s.WriteOpenAlert(ctx, &next, looked+11))
	require.NoError(t, s.DeleteOpenAlert(ctx, fleet, "d1", one.Type, looked+10))
	require.NoError(t, s.WriteOpenAlert(ctx, &one, looked+1))
	require.Equal(t, []Alert{battery, next, other}, read(), "who looked last wins, deletions included")
	require.NoError(t, s.DeleteOpenAlert(ctx, fleet, "d1", one.Type, looked+11))
	require.Equal(t, []Alert{battery, other}, read())
}

func TestZonesAreKeptByFleet(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const fleet = "fleet-zones"
	circle := Geofence{FleetID: fleet, Name: "depot", Kind: "depot", Geometry: `{"type":"Point","coordinates":[120,31]}`, RadiusM: ptr(150.0), SpeedLimitKmh: ptr(20.0), DwellS: ptr(int32(600))}
	area := Geofence{FleetID: fleet, Name: "harbour", Geometry: `{"type":"Polygon","coordinates":[]}`}
	require.NoError(t, s.WriteGeofences(ctx, fleet, []Geofence{area, circle}, looked))
	zones, err := s.Geofences(ctx, fleet)
	require.NoError(t, err)
	require.Equal(t, []Geofence{circle, area}, zones)
	require.NoError(t, s.DeleteGeofence(ctx, fleet, "harbour", looked-1))
	require.NoError(t, s.DeleteGeofence(ctx, fleet, "depot", looked))
	zones, err = s.Geofences(ctx, fleet)
	require.NoError(t, err)
	require.Equal(t, []Geofence{area}, zones)
}

func TestClaimsAreReadByDeviceAndByInstance(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	const process, other = "m~1", "m~2"
	mark := func(process, device string, from Day, writeTimeUs int64, fleets ...string) {
		require.NoError(t, s.WriteClaim(ctx, Claim{InstanceID: process, DeviceID: device, FromDay: from, Fleets: fleets}, writeTimeUs))
	}
	var want []Claim
	for i := range 40 {
		device := fmt.Sprintf("m-%02d", i)
		mark(process, device, 20000, looked, "north")
		want = append(want, Claim{InstanceID: process, DeviceID: device, FromDay: 20000})
	}
	mark(other, "m-00", 20005, looked)
	mark(process, "m-00", 19999, looked+2, "south") // an earlier record was announced
	mark(process, "m-00", 19990, looked+1)          // which was looked at before
	want[0].FromDay = 19999

	of := func(process string) []Claim {
		marks, err := s.ClaimsOfInstance(ctx, process)
		require.NoError(t, err)
		slices.SortFunc(marks, func(a, b Claim) int { return strings.Compare(a.DeviceID, b.DeviceID) })
		return marks
	}
	require.Equal(t, want, of(process), "every device, over all buckets")
	require.Equal(t, []Claim{{InstanceID: other, DeviceID: "m-00", FromDay: 20005}}, of(other))
	require.Empty(t, of("m~3"))
	on := func(device string) []Claim {
		marks, err := s.ClaimsOfDevice(ctx, device)
		require.NoError(t, err)
		return marks
	}
	require.Equal(t, []Claim{
		{InstanceID: process, DeviceID: "m-00", FromDay: 19999, Fleets: []string{"north", "south"}},
		{InstanceID: other, DeviceID: "m-00", FromDay: 20005},
	}, on("m-00"), "fleets are added to")

	require.NoError(t, s.DeleteClaim(ctx, process, "m-00", looked+1))
	require.Len(t, on("m-00"), 2, "a mark that was moved since stays")
	require.Equal(t, want, of(process))
	require.NoError(t, s.DeleteClaim(ctx, process, "m-00", looked+2))
	require.Equal(t, []Claim{{InstanceID: other, DeviceID: "m-00", FromDay: 20005}}, on("m-00"))
	require.Equal(t, want[1:], of(process))
	require.Len(t, on("m-01"), 1)
	require.NoError(t, s.DeleteClaim(ctx, process, "nobody", looked))
}

func TestProcessesGiveSignsOfLifeAndHearWhatIsShared(t *testing.T) {
	s, _ := realStore(t)
	ctx := t.Context()
	find := func(id string) (found Instance, ok bool) {
		all, err := s.Instances(ctx)
		require.NoError(t, err)
		for _, p := range all {
			if p.ID == id {
				found, ok = p, true
			}
		}
		return found, ok
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	require.NoError(t, s.Heartbeat(ctx, "p~1", now))
	require.NoError(t, s.Heartbeat(ctx, "p~2", now.Add(-time.Hour)))
	require.NoError(t, s.Heartbeat(ctx, "p~2", now.Add(-time.Minute)))
	p, ok := find("p~1")
	require.True(t, ok)
	require.Equal(t, Instance{ID: "p~1", HeartbeatAt: now}, p)
	p, _ = find("p~2")
	require.Equal(t, Instance{ID: "p~2", HeartbeatAt: now.Add(-time.Minute)}, p)

	require.NoError(t, s.AddSharedDevices(ctx, "p~1", []string{"b", "a"}))
	require.NoError(t, s.AddSharedDevices(ctx, "p~1", []string{"c", "a"}))
	require.NoError(t, s.AckSharedDevices(ctx, "p~1", []string{"b", "never"}))
	p, _ = find("p~1")
	require.Equal(t, []string{"a", "c"}, p.SharedDevices)
	require.Equal(t, now, p.HeartbeatAt)
	require.NoError(t, s.AckSharedDevices(ctx, "p~1", []string{"a", "c"}))
	p, ok = find("p~1")
	require.True(t, ok, "it lives with nothing to hear")
	require.Empty(t, p.SharedDevices)

	require.NoError(t, s.RemoveInstance(ctx, "p~1"))
	_, ok = find("p~1")
	require.False(t, ok)
	require.NoError(t, s.AddSharedDevices(ctx, "p~1", []string{"a"}))
	p, ok = find("p~1")
	require.True(t, ok, "what it is told after its end is found by who cleans up after it")
	require.True(t, p.HeartbeatAt.IsZero(), "as of one that has not been seen for long")
}
