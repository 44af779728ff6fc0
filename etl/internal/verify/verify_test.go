package verify

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/recompute"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

type noGeofences struct{}

func (noGeofences) Near(_ string, _, _, _ float64, found []telemetry.NearbyGeofence) []telemetry.NearbyGeofence {
	return found
}

// noon is the time of the first record.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var today = cassandra.DayOf(noon.UnixMilli())

// fixture is a store with half an hour of driving, too fast at first, and half an hour at rest with a battery that is low.
type fixture struct {
	*fakestore.Store
	rules derived.Rules
	last  time.Time // of the last record
}

func newFixture(t *testing.T) *fixture {
	parsed, err := rules.Parse("rules", []byte(`
defaults:
  speed_limit: {limit: 70, for: 1m, cool_down: 5m, levels: {LOW: 0, MEDIUM: 10, HIGH: 25}}
  battery_low: {levels: {LOW: 40, MEDIUM: 20}}
`))
	require.NoError(t, err)
	f := &fixture{Store: fakestore.New(), rules: derived.Rules{Engine: alerting.New(parsed, noGeofences{}), Fingerprint: parsed.Fingerprint()}}
	lon := 9.0
	for i := range 360 {
		f.last = noon.Add(time.Duration(i) * 10 * time.Second)
		r := telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: f.last.UnixMilli(), Lat: 51, BatteryPct: telemetry.Some(int32(80))}
		switch {
		case i < 30:
			lon += .004
			r.SpeedKmh = telemetry.Some(100.0)
		case i < 180:
			lon += .002
			r.SpeedKmh = telemetry.Some(50.0)
		default:
			r.SpeedKmh, r.BatteryPct = telemetry.Some(0.0), telemetry.Some(int32(30))
		}
		r.Lon = lon
		f.View(nil).Write(&r)
	}
	v, at := f.View(nil), time.UnixMilli(1).UnixMicro()
	result, err := recompute.Device(t.Context(), v, f.rules, recompute.Request{DeviceID: "v1", From: today, Fleets: []string{"north"}, At: at, Now: f.last.Add(time.Minute)})
	require.NoError(t, err)
	logger, _ := logtest.NewNullLogger()
	w := derived.Writer{Store: v, Exec: executor.New(executor.Options{MaxInFlight: 4, RetryRate: 1}, logger, prometheus.NewRegistry(), time.Now)}
	guard := func(context.Context) error { return nil }
	rows, open := &derived.Changes{}, &derived.Changes{}
	result.AddTo(rows)
	result.AddOpenAlerts(open, func(derived.AlertKey) bool { return true })
	failed, err := w.Write(t.Context(), rows, guard)
	require.NoError(t, err)
	require.Empty(t, failed)
	failed, err = w.Write(t.Context(), open, guard)
	require.NoError(t, err)
	require.Empty(t, failed)
	sum, found := derived.SumHours(fakestore.List[cassandra.HourRow](f.Store, cassandra.TableHours, ""))
	require.True(t, found)
	require.NoError(t, v.ApplyAnalytics(t.Context(), cassandra.Put(at, sum)))
	return f
}

// verify compares the day of the records, some time after the last of them.
func (f *fixture) verify(t *testing.T, after time.Duration) *Report {
	t.Helper()
	v := &Verifier{Store: f.View(nil), Rules: f.rules, Now: func() time.Time { return f.last.Add(after) }}
	report, err := v.Verify(t.Context(), []string{"north", "south"}, today, today)
	require.NoError(t, err)
	return report
}

func (f *fixture) claim(t *testing.T) {
	t.Helper()
	require.NoError(t, f.View(nil).ApplyDeviceClaims(t.Context(), cassandra.Put(1, cassandra.Claim{InstanceID: "other", DeviceID: "v1", FromDay: today})))
}

// change returns a change to a stored row.
func change[R any](to func(*R)) func(*fakestore.Cell) {
	return func(c *fakestore.Cell) {
		row := c.Row.(R)
		to(&row)
		c.Row = row
	}
}

func gone(c *fakestore.Cell) { c.Deleted = c.Wrote }

const settled = 10 * time.Minute // after the last record; too short for an alert about the silence

func TestRightRowsDoNotDiffer(t *testing.T) {
	f := newFixture(t)
	require.Equal(t, &Report{Fleets: 2, Devices: 1, DeviceDays: 1, Records: 360, Trips: 2, Alerts: 2, Hours: 1}, f.verify(t, settled))
	f.claim(t)
	require.Equal(t, &Report{Fleets: 2, Devices: 1, DeviceDays: 1, Records: 360, Trips: 2, Alerts: 2, Hours: 1}, f.verify(t, settled),
		"a claimed device whose rows are right is verified")
}

// unreadable is a store in which the history of a device can't be read.
type unreadable struct {
	*fakestore.View
	device string
}

func (s unreadable) Positions(ctx context.Context, id string, day cassandra.Day) ([]cassandra.Telemetry, error) {
	if id == s.device {
		return nil, &cassandra.Error{Op: "read history", Reason: cassandra.ReasonOther, Err: errors.New("bad row")}
	}
	return s.View.Positions(ctx, id, day)
}

func TestDeviceThatCannotBeReadIsReportedAndOthersAreVerified(t *testing.T) {
	f := newFixture(t)
	bad := telemetry.Record{DeviceID: "v2", FleetID: "north", Zone: "unknown", TimeMs: f.last.UnixMilli(), Lat: 51, Lon: 9}
	f.View(nil).Write(&bad)
	v := &Verifier{Store: unreadable{f.View(nil), "v2"}, Rules: f.rules, Now: func() time.Time { return f.last.Add(settled) }}
	report, err := v.Verify(t.Context(), []string{"north"}, today, today)
	require.NoError(t, err)
	require.Equal(t, []Difference{{cassandra.TableHistory, "v2", "can't be verified: read history: other: bad row"}}, report.Differences)
	require.Equal(t, 2, report.Devices)
	require.Equal(t, 360, report.Records)
}

// holes is a store in which some rows of a fleet can't be read.
type holes struct {
	*fakestore.View
	table, fleet string
	reason       cassandra.Reason
}

func (s holes) fail(table, fleet string) error {
	if table != s.table || fleet != s.fleet {
		return nil
	}
	return &cassandra.Error{Op: "read " + table, Reason: s.reason, Err: errors.New("too many tombstones")}
}

func (s holes) DeviceIDs(ctx context.Context, fleet string) ([]string, error) {
	if err := s.fail(cassandra.TableDevices, fleet); err != nil {
		return nil, err
	}
	return s.View.DeviceIDs(ctx, fleet)
}

func (s holes) Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	if err := s.fail(cassandra.TableAlerts, q.FleetID); err != nil {
		return nil, err
	}
	return s.View.Alerts(ctx, q)
}

func (s holes) Analytics(ctx context.Context, fleet string, first, last cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	if err := s.fail(cassandra.TableAnalytics, fleet); err != nil {
		return nil, err
	}
	return s.View.Analytics(ctx, fleet, first, last)
}

func (s holes) Hours(ctx context.Context, fleet string, hourMs int64) ([]cassandra.HourRow, error) {
	if err := s.fail(cassandra.TableHours, fleet); err != nil {
		return nil, err
	}
	return s.View.Hours(ctx, fleet, hourMs)
}

func TestFleetThatCannotBeReadIsReportedAndOthersAreVerified(t *testing.T) {
	for table, differences := range map[string]int{cassandra.TableDevices: 1, cassandra.TableAlerts: 1, cassandra.TableAnalytics: 1, cassandra.TableHours: 24} {
		t.Run(table, func(t *testing.T) {
			f := newFixture(t)
			verify := func(reason cassandra.Reason) (*Report, error) {
				v := &Verifier{Store: holes{f.View(nil), table, "south", reason}, Rules: f.rules, Now: func() time.Time { return f.last.Add(settled) }}
				return v.Verify(t.Context(), []string{"south", "north"}, today, today)
			}
			for _, reason := range []cassandra.Reason{cassandra.ReasonFailure, cassandra.ReasonTimeout, cassandra.ReasonOther} {
				report, err := verify(reason)
				require.NoError(t, err)
				require.Len(t, report.Differences, differences)
				for _, d := range report.Differences {
					require.Equal(t, table, d.Table)
					require.True(t, strings.HasPrefix(d.Key, "south"), d.Key)
					require.Contains(t, d.What, "can't be verified")
				}
				require.Equal(t, 360, report.Records)
				require.Equal(t, 1, report.Hours)
			}
			_, err := verify(cassandra.ReasonUnavailable)
			require.ErrorContains(t, err, "too many tombstones", "the cluster is at fault")
		})
	}
}

func TestWrongRowsDiffer(t *testing.T) {
	const speeding = "v1 speed_limit of 2026-03-01T12:01:00.000Z"
	alert := cassandra.Alert{FleetID: "north", DeviceID: "v1", Type: "speed_limit", Severity: "LOW", OpenedMs: noon.Add(2 * time.Minute).UnixMilli(), Message: "too fast"}
	for name, c := range map[string]struct {
		table string
		cell  int // that spoil changes
		spoil func(*fakestore.Cell)
		add   func(v *fakestore.View) error
		want  Difference
	}{
		"changed trip": {
			table: cassandra.TableTrips, spoil: change(func(r *cassandra.TripRow) { r.DistanceKm++ }),
			want: Difference{cassandra.TableTrips, "v1 trip of 2026-03-01T12:00:00.000Z", "should be"},
		},
		"missing trip": {
			table: cassandra.TableTrips, spoil: gone,
			want: Difference{cassandra.TableTrips, "v1 trip of 2026-03-01T12:00:00.000Z", "missing"},
		},
		"extra trip": {
			add: func(v *fakestore.View) error {
				return v.ApplyTrips(t.Context(), "v1", cassandra.Put(1, cassandra.TripRow{StartMs: noon.UnixMilli() + 1, Kind: "trip"}))
			},
			want: Difference{cassandra.TableTrips, "v1 trip of 2026-03-01T12:00:00.001Z", "should not exist"},
		},
		"changed alert": {
			table: cassandra.TableDeviceAlerts, spoil: change(func(r *cassandra.Alert) { r.StartedMs++ }),
			want: Difference{cassandra.TableDeviceAlerts, speeding, "should be HIGH"},
		},
		"missing alert": {
			table: cassandra.TableDeviceAlerts, spoil: gone,
			want: Difference{cassandra.TableDeviceAlerts, speeding, "missing"},
		},
		"extra alert": {
			add: func(v *fakestore.View) error {
				return v.ApplyDeviceAlerts(t.Context(), cassandra.Put(1, alert))
			},
			want: Difference{cassandra.TableDeviceAlerts, alertName(alert), "should not exist"},
		},
		"changed alert of the fleet": {
			table: cassandra.TableAlerts, spoil: change(func(r *cassandra.Alert) { r.EndedMs++ }),
			want: Difference{cassandra.TableAlerts, speeding, "the row of its device"},
		},
		"missing alert of the fleet": {
			table: cassandra.TableAlerts, spoil: gone,
			want: Difference{cassandra.TableAlerts, speeding, "missing"},
		},
		"alert of the fleet with two severities": {
			add: func(v *fakestore.View) error {
				a := alert
				a.OpenedMs = noon.Add(time.Minute).UnixMilli()
				return v.ApplyFleetAlerts(t.Context(), cassandra.Put(1, a))
			},
			want: Difference{cassandra.TableAlerts, speeding, "exists 2 times"},
		},
		"extra alert of the fleet": {
			add: func(v *fakestore.View) error {
				return v.ApplyFleetAlerts(t.Context(), cassandra.Put(1, alert))
			},
			want: Difference{cassandra.TableAlerts, alertName(alert), "should not exist"},
		},
		"alert in a fleet that the device was not in": {
			add: func(v *fakestore.View) error {
				a := alert
				a.FleetID, a.OpenedMs = "south", noon.Add(time.Minute).UnixMilli()
				return v.ApplyFleetAlerts(t.Context(), cassandra.Put(1, a))
			},
			want: Difference{cassandra.TableAlerts, speeding, "should not exist"},
		},
		"missing open alert": {
			table: cassandra.TableOpenAlerts, spoil: gone,
			want: Difference{cassandra.TableOpenAlerts, "v1 battery_low of 2026-03-01T12:30:00.000Z", "missing"},
		},
		"extra open alert": {
			add: func(v *fakestore.View) error {
				return v.ApplyOpenAlerts(t.Context(), cassandra.Put(2000, alert))
			},
			want: Difference{cassandra.TableOpenAlerts, alertName(alert), "should not exist"},
		},
		"ended alert that is open": {
			add: func(v *fakestore.View) error {
				a := alert
				a.OpenedMs = noon.Add(time.Minute).UnixMilli()
				return v.ApplyOpenAlerts(t.Context(), cassandra.Put(2000, a))
			},
			want: Difference{cassandra.TableOpenAlerts, speeding, "it ended"},
		},
		"changed hour": {
			table: cassandra.TableHours, spoil: change(func(r *cassandra.HourRow) { r.DrivingS++ }),
			want: Difference{cassandra.TableHours, "north 2026-03-01T12:00:00.000Z v1", "should add"},
		},
		"missing hour": {
			table: cassandra.TableHours, spoil: gone,
			want: Difference{cassandra.TableHours, "north 2026-03-01T12:00:00.000Z", "has 0 devices"},
		},
		"extra hour": {
			add: func(v *fakestore.View) error {
				return v.ApplyHours(t.Context(), cassandra.Put(1, cassandra.HourRow{FleetID: "south", HourMs: noon.UnixMilli(), DeviceID: "v1"}))
			},
			want: Difference{cassandra.TableHours, "south 2026-03-01T12:00:00.000Z v1", "should not exist"},
		},
		"changed sum": {
			table: cassandra.TableAnalytics, spoil: change(func(r *cassandra.AnalyticsRow) { r.AlertsCount++ }),
			want: Difference{cassandra.TableAnalytics, "north 2026-03-01T12:00:00.000Z", "should be"},
		},
		"missing sum": {
			table: cassandra.TableAnalytics, spoil: gone,
			want: Difference{cassandra.TableAnalytics, "north 2026-03-01T12:00:00.000Z", "missing"},
		},
		"extra sum": {
			add: func(v *fakestore.View) error {
				return v.ApplyAnalytics(t.Context(), cassandra.Put(1, cassandra.AnalyticsRow{FleetID: "south", Day: today, Hour: 7}))
			},
			want: Difference{cassandra.TableAnalytics, "south 2026-03-01T07:00:00.000Z", "should not exist"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if c.spoil != nil {
				cells := f.Cells(c.table)
				for _, cell := range cells { // of trips and alerts, the trip and the speed alert
					switch r := cell.Row.(type) {
					case cassandra.TripRow:
						if r.Kind != "trip" {
							continue
						}
					case cassandra.Alert:
						if len(cells) > 1 && r.Type != "speed_limit" {
							continue
						}
					}
					c.spoil(cell)
				}
			} else {
				require.NoError(t, c.add(f.View(nil)))
			}
			report := f.verify(t, settled)
			require.NotEmpty(t, report.Differences)
			require.Len(t, report.Differences, 1, "and nothing else")
			d := report.Differences[0]
			require.Equal(t, c.want.Table, d.Table)
			require.Equal(t, c.want.Key, d.Key)
			require.Contains(t, d.What, c.want.What)
			require.False(t, report.NotVerified.Any())

			if name == "extra sum" {
				return // of a fleet without devices
			}
			f.claim(t)
			report = f.verify(t, settled)
			require.Empty(t, report.Differences, "an instance still derives the device")
			require.Positive(t, report.NotVerified.Pending+report.NotVerified.Hours)
		})
	}
}

// staleLatest is a store whose latest row is not of the newest record.
type staleLatest struct {
	*fakestore.View
	err error
}

func (s staleLatest) Latest(ctx context.Context, id string) (cassandra.Telemetry, error) {
	row, err := s.View.Latest(ctx, id)
	row.Ts = row.Ts.Add(-time.Second)
	if s.err != nil {
		return row, s.err
	}
	return row, err
}

func TestWrongLatestPositionDiffers(t *testing.T) {
	for name, err := range map[string]error{
		"stale":   nil,
		"missing": &cassandra.Error{Op: "read", Reason: cassandra.ReasonNotFound, Err: cassandra.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			v := &Verifier{Store: staleLatest{f.View(nil), err}, Rules: f.rules, Now: func() time.Time { return f.last.Add(settled) }}
			report, err := v.Verify(t.Context(), []string{"north"}, today, today)
			require.NoError(t, err)
			require.Len(t, report.Differences, 1)
			require.Equal(t, cassandra.TableLatest, report.Differences[0].Table)
			v.Now = func() time.Time { return f.last.Add(24 * time.Hour) }
			report, err = v.Verify(t.Context(), []string{"north"}, today, today)
			require.NoError(t, err)
			for _, d := range report.Differences {
				require.NotEqual(t, cassandra.TableLatest, d.Table, "a later day may have newer records")
			}
		})
	}
}

func TestSendingDeviceIsCountedAsNotVerified(t *testing.T) {
	f := newFixture(t)
	for _, c := range f.Cells(cassandra.TableTrips) { // the trip has ended, the stop continues
		if c.Row.(cassandra.TripRow).Kind == "stop" {
			gone(c)
		}
	}
	for _, c := range f.Cells(cassandra.TableHours) {
		gone(c)
	}
	report := f.verify(t, time.Minute)
	require.Empty(t, report.Differences)
	require.Equal(t, NotVerified{Sending: 1, Hours: 1}, report.NotVerified)
	require.Zero(t, report.Hours, "no hour is known to be right")
	report = f.verify(t, settled)
	require.Len(t, report.Differences, 2, "once it is silent")
	require.False(t, report.NotVerified.Any())
}

func TestClaimedDeviceIsCountedAsPending(t *testing.T) {
	f := newFixture(t)
	f.claim(t)
	for _, table := range []string{cassandra.TableTrips, cassandra.TableHours} {
		for _, c := range f.Cells(table) {
			gone(c)
		}
	}
	report := f.verify(t, settled)
	require.Empty(t, report.Differences)
	require.Equal(t, NotVerified{Pending: 1, Hours: 1}, report.NotVerified)
	require.Zero(t, report.Hours)
}

func TestDaysThatWereDerivedWithOtherRulesAreCounted(t *testing.T) {
	f := newFixture(t)
	for _, c := range f.Cells(cassandra.TableDeviceDays) {
		change(func(d *cassandra.DeviceDay) { d.Rules = "other" })(c)
	}
	report := f.verify(t, settled)
	require.Equal(t, 1, report.OtherRules)
	require.Empty(t, report.Differences)
}

func TestAlertThatWasResolvedByHandIsRight(t *testing.T) {
	f := newFixture(t)
	open := fakestore.List[cassandra.Alert](f.Store, cassandra.TableOpenAlerts, "")
	require.Len(t, open, 1)
	f.View(nil).Resolve(open[0], time.Now().UnixMicro())
	require.Empty(t, f.verify(t, settled).Differences)
}

func TestOtherDaysAreNotVerified(t *testing.T) {
	f := newFixture(t)
	v := &Verifier{Store: f.View(nil), Rules: f.rules, Now: func() time.Time { return f.last.Add(settled) }}
	report, err := v.Verify(t.Context(), []string{"north"}, today-2, today-1)
	require.NoError(t, err)
	require.Equal(t, &Report{Fleets: 1, Devices: 1}, report)
}
