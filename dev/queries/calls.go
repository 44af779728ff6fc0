package queries

import (
	"context"
	"fmt"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// call is one use of the store, as a screen, a route of the API or the pipeline makes it.
type call struct {
	name  string
	kind  kind
	run   func(ctx context.Context, i int) error
	times int // that it is run; 0: as often as was asked for
}

// kind says what a call is measured against.
type kind string

const (
	screen     kind = "screen"     // somebody waits, and the next refresh comes soon
	export     kind = "export"     // somebody waits for a whole list, which has as many rows as it has
	background kind = "background" // the pipeline, every few seconds
	write      kind = "write"
	rare       kind = "rare" // verify, a derivation anew, a change of the registry
)

// budgets are what a call may take at P95 on the machine that measures.
var budgets = map[kind]time.Duration{
	screen: 50 * time.Millisecond, export: time.Second, background: 250 * time.Millisecond, write: 50 * time.Millisecond, rare: time.Second,
}

// sample is what the keyspace holds to be asked for.
type sample struct {
	store  *cassandra.Store
	now    time.Time
	sparse []string
	dense  []string
}

func newSample(ctx context.Context, store *cassandra.Store, now time.Time) (*sample, error) {
	ids, err := store.DeviceIDs(ctx, fleetID)
	if err != nil {
		return nil, err
	}
	s := &sample{store: store, now: now}
	for _, id := range ids {
		if id < "f" { // dense-…
			s.dense = append(s.dense, id)
		} else {
			s.sparse = append(s.sparse, id)
		}
	}
	if len(s.dense) == 0 || len(s.sparse) < 100 {
		return nil, fmt.Errorf("fleet %s has %d vehicles that send often and %d others: fill it first", fleetID, len(s.dense), len(s.sparse))
	}
	return s, nil
}

// device is another for each run, so that no cache answers for all.
func (s *sample) device(i int) string { return s.sparse[i*379%len(s.sparse)] }

// followed is one of those that have states and alerts day by day.
func (s *sample) followed(i int) string {
	return s.sparse[i*379%min(followed-len(s.dense), len(s.sparse))]
}

func (s *sample) denseDevice(i int) string { return s.dense[i%len(s.dense)] }

// day is one of the days that are over.
func (s *sample) day(i int) cassandra.Day {
	return cassandra.DayOf(s.now.UnixMilli()) - 1 - cassandra.Day(i%20)
}

func (s *sample) ago(d time.Duration) time.Time { return s.now.Add(-d) }

const aDay = 24 * time.Hour

// reads are the calls that read, each as it is made.
func (s *sample) reads() []call {
	st := s.store
	history := func(device func(int) string, back time.Duration, limit int) func(context.Context, int) error {
		return func(ctx context.Context, i int) error {
			_, err := st.History(ctx, cassandra.HistoryQuery{DeviceID: device(i), From: s.ago(back), To: s.now, Limit: limit})
			return err
		}
	}
	alerts := func(back time.Duration, limit int) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error {
			_, err := st.Alerts(ctx, cassandra.AlertQuery{FleetID: fleetID, From: s.ago(back), To: s.now, Limit: limit})
			return err
		}
	}
	analytics := func(days cassandra.Day) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error {
			today := cassandra.DayOf(s.now.UnixMilli())
			_, err := st.Analytics(ctx, fleetID, today-days+1, today)
			return err
		}
	}
	return []call{
		{name: "newest fix of a device", kind: screen, run: func(ctx context.Context, i int) error {
			_, err := st.Latest(ctx, s.device(i))
			return err
		}},
		{name: "map of the fleet", kind: screen, run: func(ctx context.Context, _ int) error {
			_, err := st.LatestOfFleet(ctx, fleetID)
			return err
		}},
		{name: "track, 24 h, a fix each 10 s, 1,000 rows", kind: screen, run: history(s.denseDevice, aDay, 1001)},
		{name: "track, 30 days, a fix each 10 s, 1,000 rows", kind: screen, run: history(s.denseDevice, 30*aDay, 1001)},
		{name: "track, 30 days, a fix an hour, 1,000 rows", kind: screen, run: history(s.device, 30*aDay, 1001)},
		{name: "track, 7 days, a fix each 10 s, all rows", kind: export, times: 10, run: history(s.denseDevice, 7*aDay, 0)},
		{name: "day of a track, a fix each 10 s", kind: export, run: func(ctx context.Context, i int) error {
			day := s.day(i)
			_, err := st.TrackOfDay(ctx, s.denseDevice(i), day, day.Time().UnixMilli(), (day+1).Time().UnixMilli()-1, 2_000_000)
			return err
		}},
		{name: "day of a track, a fix an hour", kind: screen, run: func(ctx context.Context, i int) error {
			day := s.day(i)
			_, err := st.TrackOfDay(ctx, s.device(i), day, day.Time().UnixMilli(), (day+1).Time().UnixMilli()-1, 2_000_000)
			return err
		}},
		{name: "page of devices, 1,000", kind: screen, run: func(ctx context.Context, _ int) error {
			_, err := st.Devices(ctx, fleetID, 1000, "")
			return err
		}},
		{name: "list of fleets", kind: screen, run: func(ctx context.Context, _ int) error {
			_, err := st.Fleets(ctx)
			return err
		}},
		{name: "zones", kind: screen, run: func(ctx context.Context, _ int) error {
			_, err := st.Geofences(ctx, fleetID)
			return err
		}},
		{name: "alerts, 24 h, newest 1,000", kind: screen, run: alerts(aDay, 1001)},
		{name: "alerts, 7 days, newest 1,000", kind: screen, run: alerts(7*aDay, 1001)},
		{name: "alerts, 30 days, newest 1,000", kind: screen, run: alerts(30*aDay, 1001)},
		{name: "alerts, 7 days, all", kind: export, times: 10, run: alerts(7*aDay, 0)},
		{name: "alert by its key", kind: screen, run: func(ctx context.Context, i int) error {
			at := s.ago(time.Duration(i) * time.Hour)
			_, err := st.Alerts(ctx, cassandra.AlertQuery{FleetID: fleetID, From: at, To: at, Severities: []string{"HIGH"}})
			return err
		}},
		{name: "open alerts of the fleet", kind: screen, run: func(ctx context.Context, _ int) error {
			_, err := st.OpenAlerts(ctx, fleetID)
			return err
		}},
		{name: "figures, 24 h", kind: screen, run: analytics(2)},
		{name: "figures, 7 days", kind: screen, run: analytics(7)},
		{name: "figures, 30 days", kind: screen, run: analytics(30)},

		{name: "open alerts of a device", kind: background, run: func(ctx context.Context, i int) error {
			_, err := st.OpenAlertsOfDevice(ctx, fleetID, s.device(i))
			return err
		}},
		{name: "state of a device", kind: background, run: func(ctx context.Context, i int) error {
			_, _, err := st.LastDeviceDay(ctx, s.followed(i), cassandra.DayOf(s.now.UnixMilli()))
			return err
		}},
		{name: "marks of a device", kind: background, run: func(ctx context.Context, i int) error {
			_, err := st.ClaimsOfDevice(ctx, s.device(i))
			return err
		}},
		{name: "processes", kind: background, run: func(ctx context.Context, _ int) error {
			_, err := st.Instances(ctx)
			return err
		}},
		{name: "an hour of the fleet, to sum it", kind: background, run: func(ctx context.Context, i int) error {
			_, err := st.Hours(ctx, fleetID, s.day(i%4).Time().Add(time.Duration(i%24)*time.Hour).UnixMilli())
			return err
		}},
		{name: "1,000 devices that a loader meets", kind: rare, times: 10, run: func(ctx context.Context, i int) error {
			ids := make([]string, 1000)
			for j := range ids {
				ids[j] = s.device(i*1000 + j)
			}
			_, err := st.LatestWriteTimes(ctx, ids)
			return err
		}},
		{name: "is the cluster ready", kind: background, run: func(ctx context.Context, _ int) error { return st.Ready(ctx) }},

		{name: "every device of the fleet", kind: rare, run: func(ctx context.Context, _ int) error {
			_, err := st.DeviceIDs(ctx, fleetID)
			return err
		}},
		{name: "day of a device in event order, a fix each 10 s", kind: rare, run: func(ctx context.Context, i int) error {
			_, err := st.Positions(ctx, s.denseDevice(i), s.day(i))
			return err
		}},
		{name: "states of a device, 30 days", kind: rare, run: func(ctx context.Context, i int) error {
			_, err := st.DeviceDays(ctx, s.followed(i), cassandra.DayOf(s.now.UnixMilli())-30)
			return err
		}},
		{name: "trips of a device, 30 days", kind: rare, run: func(ctx context.Context, i int) error {
			_, err := st.Trips(ctx, s.denseDevice(i), s.ago(30*aDay).UnixMilli(), s.now.UnixMilli())
			return err
		}},
		{name: "alerts of a device, 30 days", kind: rare, run: func(ctx context.Context, i int) error {
			_, err := st.DeviceAlerts(ctx, s.followed(i), s.ago(30*aDay).UnixMilli(), s.now.UnixMilli())
			return err
		}},
		{name: "alerts of a day with their lives", kind: rare, times: 10, run: func(ctx context.Context, i int) error {
			day := s.day(i)
			_, err := st.FleetAlerts(ctx, fleetID, day, day.Time().UnixMilli(), (day+1).Time().UnixMilli()-1)
			return err
		}},
		{name: "figures of a day with every column", kind: rare, run: func(ctx context.Context, i int) error {
			_, err := st.AnalyticsRows(ctx, fleetID, s.day(i))
			return err
		}},
		{name: "marks of a dead process", kind: rare, run: func(ctx context.Context, _ int) error {
			_, err := st.ClaimsOfInstance(ctx, probeProcess)
			return err
		}},
	}
}

// What the writes are made with: names that belong to no fleet of people.
const (
	probeFleet   = "_queries"
	probeDevice  = "_queries-1"
	probeProcess = "_queries-process"
)

// writes are the calls that write, with as many rows as the pipeline sends at once.
func (s *sample) writes() []call {
	st := s.store
	f, n := func(v float64) *float64 { return &v }, int32(77)
	us := func(i int) int64 { return s.now.UnixMicro() + int64(i) }
	day := cassandra.DayOf(s.now.UnixMilli())
	latest := func(i, j int) cassandra.LatestRow {
		ms := s.now.UnixMilli()
		return cassandra.LatestRow{
			DeviceID: fmt.Sprintf("%s-%d", probeDevice, j), FleetID: probeFleet, LastTsMs: &ms, Lat: f(52.37), Lon: f(9.73), SpeedKmh: f(31.5), HeadingDeg: f(90),
			BatteryPct: &n, TempC: f(4.5), Zone: "city-centre", WriteTimeUs: us(i),
		}
	}
	alert := func(i int) *cassandra.Alert {
		ms := s.now.UnixMilli() - int64(i)*1000
		return &cassandra.Alert{
			FleetID: probeFleet, DeviceID: probeDevice, Type: "speed_limit", Severity: "LOW", OpenedMs: ms, StartedMs: ms,
			Message: "97 km/h, limit 50 km/h, in city-centre", Peak: 97, Threshold: 50, Zone: "city-centre", Lat: 52.37, Lon: 9.73,
		}
	}
	mark := cassandra.Claim{InstanceID: probeProcess, DeviceID: probeDevice, FromDay: day, Fleets: []string{probeFleet}}
	hour := s.now.Truncate(time.Hour).UnixMilli()
	calls := []call{
		{name: "100 fixes of a device and day", run: func(ctx context.Context, i int) error {
			rows := make([]cassandra.TelemetryRow, 100)
			for j := range rows {
				rows[j] = cassandra.TelemetryRow{
					TsMs: day.Time().UnixMilli() + int64(i*100+j), FleetID: probeFleet, Lat: 52.37, Lon: 9.73, SpeedKmh: f(31.5), HeadingDeg: f(90),
					BatteryPct: &n, TempC: f(4.5), Zone: "city-centre", WriteTimeUs: us(i), TTLSeconds: 600,
				}
			}
			return st.WriteHistory(ctx, probeDevice, day, rows)
		}},
		{name: "newest fix of a device", run: func(ctx context.Context, i int) error {
			row := latest(i, 0)
			return st.WriteLatest(ctx, &row)
		}},
		{name: "newest fixes of 100 devices of a bucket", run: func(ctx context.Context, i int) error {
			rows := make([]cassandra.LatestRow, 100)
			for j := range rows {
				rows[j] = latest(i, j)
			}
			return st.WriteLatestByFleet(ctx, probeFleet, 0, rows)
		}},
		{name: "a device leaves a map", run: func(ctx context.Context, i int) error {
			return st.DeleteLatestByFleet(ctx, probeFleet, probeDevice, us(i))
		}},
		{name: "100 devices of a fleet", run: func(ctx context.Context, i int) error {
			rows := make([]cassandra.DeviceRow, 100)
			for j := range rows {
				rows[j] = cassandra.DeviceRow{
					DeviceID: fmt.Sprintf("%s-%d", probeDevice, j), Status: cassandra.StatusActive, ActivatedAtMs: s.now.UnixMilli(), StatusWriteTimeUs: us(i),
				}
			}
			return st.WriteDevices(ctx, probeFleet, rows)
		}},
		{name: "a fleet", run: func(ctx context.Context, _ int) error { return st.WriteFleet(ctx, probeFleet) }},
		{name: "ten zones", run: func(ctx context.Context, i int) error {
			zones := make([]cassandra.Geofence, 10)
			for j := range zones {
				zones[j] = cassandra.Geofence{Name: fmt.Sprintf("zone-%d", j), Kind: "depot", Geometry: `{"type":"Point","coordinates":[9.809232,52.392527]}`, RadiusM: f(180)}
			}
			return st.WriteGeofences(ctx, probeFleet, zones, us(i))
		}},
		{name: "a zone goes", run: func(ctx context.Context, i int) error { return st.DeleteGeofence(ctx, probeFleet, "zone-1", us(i)) }},
		{name: "an alert resolved by hand", run: func(ctx context.Context, i int) error {
			a := alert(i)
			return st.ResolveAlert(ctx, a, us(i))
		}},
		{name: "an alert and its end", run: func(ctx context.Context, i int) error {
			a := alert(i)
			a.EndedMs = a.OpenedMs + 1000
			return st.WriteFleetAlert(ctx, a, us(i))
		}},
		{name: "an alert of its device", run: func(ctx context.Context, i int) error { return st.WriteDeviceAlert(ctx, alert(i), us(i)) }},
		{name: "an open alert", run: func(ctx context.Context, i int) error { return st.WriteOpenAlert(ctx, alert(i), us(i)) }},
		{name: "an open alert goes", run: func(ctx context.Context, i int) error {
			return st.DeleteOpenAlert(ctx, probeFleet, probeDevice, "speed_limit", us(i))
		}},
		{name: "an alert is taken back", run: func(ctx context.Context, i int) error { return st.DeleteFleetAlert(ctx, alert(i), us(i)+1) }},
		{name: "an alert of a device is taken back", run: func(ctx context.Context, i int) error {
			return st.DeleteDeviceAlert(ctx, probeDevice, alert(i).OpenedMs, "speed_limit", us(i)+1)
		}},
		{name: "thirty trips and stops of a device", run: func(ctx context.Context, i int) error {
			rows := make([]cassandra.TripRow, 30)
			for j := range rows {
				start := day.Month().Time().UnixMilli() + int64(i*30+j)*60_000
				rows[j] = cassandra.TripRow{
					StartMs: start, EndMs: start + 50_000, Kind: "trip", FleetID: probeFleet, DistanceKm: 1.5, MaxSpeedKmh: f(50), IdleS: 4,
					StartLat: 52.37, StartLon: 9.73, EndLat: 52.38, EndLon: 9.74, StartZone: "depot", EndZone: "city-centre",
				}
			}
			return st.WriteTrips(ctx, probeDevice, rows, us(i))
		}},
		{name: "a trip is taken back", run: func(ctx context.Context, i int) error {
			return st.DeleteTrip(ctx, probeDevice, day.Month().Time().UnixMilli()+int64(i*30)*60_000, "trip", us(i)+1)
		}},
		{name: "100 devices of an hour", run: func(ctx context.Context, i int) error {
			rows := make([]cassandra.HourRow, 100)
			for j := range rows {
				rows[j] = cassandra.HourRow{
					FleetID: probeFleet, HourMs: hour, DeviceID: fmt.Sprintf("%s-%d", probeDevice, j), DistanceKm: 12.5, SpeedSumKmh: 900, SpeedCount: 30, Records: 30,
					MaxSpeedKmh: 60, DrivingS: 1800, Alerts: 1,
				}
			}
			return st.WriteHours(ctx, rows, us(i))
		}},
		{name: "a device of an hour is taken back", run: func(ctx context.Context, i int) error {
			return st.DeleteHour(ctx, probeFleet, hour, probeDevice+"-1", us(i)+1)
		}},
		{name: "an hour of a fleet", run: func(ctx context.Context, i int) error {
			records := int64(3000)
			return st.WriteAnalytics(ctx, []cassandra.AnalyticsRow{{
				FleetID: probeFleet, Day: day, Hour: int32(i % 24), TotalDistanceKm: 1250, AvgSpeedKmh: f(30), AlertsCount: 10, ActiveDevicesCount: 100,
				RecordsCount: &records, MaxSpeedKmh: f(90), DrivingS: &records, WriteTimeUs: us(i),
			}})
		}},
		{name: "an hour of a fleet is taken back", run: func(ctx context.Context, i int) error { return st.DeleteAnalytics(ctx, probeFleet, hour, us(i)+1) }},
		{name: "state of a device", run: func(ctx context.Context, i int) error {
			return st.WriteDeviceDay(ctx, probeDevice, cassandra.DeviceDay{Day: day, State: make([]byte, 600), Rules: "r", Fleets: []string{probeFleet}}, us(i))
		}},
		{name: "a sign of life", run: func(ctx context.Context, _ int) error { return st.Heartbeat(ctx, probeProcess, s.ago(aDay)) }},
		{name: "a process is told", run: func(ctx context.Context, _ int) error {
			return st.AddSharedDevices(ctx, probeProcess, []string{probeDevice})
		}},
		{name: "it has heard", run: func(ctx context.Context, _ int) error {
			return st.AckSharedDevices(ctx, probeProcess, []string{probeDevice})
		}},
		{name: "a process goes", run: func(ctx context.Context, _ int) error { return st.RemoveInstance(ctx, probeProcess) }},
		{name: "a mark", run: func(ctx context.Context, i int) error { return st.WriteClaim(ctx, mark, us(i)) }},
		{name: "a mark goes", run: func(ctx context.Context, i int) error { return st.DeleteClaim(ctx, probeProcess, probeDevice, us(i)+1) }},
	}
	for i := range calls {
		calls[i].kind = write
	}
	return calls
}
