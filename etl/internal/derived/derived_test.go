package derived

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
)

// requests is a store that notes each request, with its table and number of rows.
type requests struct {
	mu   sync.Mutex
	list []string
	fail string // table whose requests fail
}

var errDown = errors.New("down")

func request[R any](s *requests, table string, rows []cassandra.Mutation[R]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if table == s.fail {
		return errDown
	}
	s.list = append(s.list, fmt.Sprint(table, " ", len(rows)))
	return nil
}

func (s *requests) ApplyDeviceAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	table := cassandra.TableDeviceAlerts
	if rows[0].Delete {
		table = "delete " + table
	}
	return request(s, table, rows)
}

func (s *requests) ApplyFleetAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return request(s, cassandra.TableAlerts, rows)
}

func (s *requests) ApplyOpenAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	return request(s, cassandra.TableOpenAlerts, rows)
}

func (s *requests) ApplyTrips(_ context.Context, _ string, rows []cassandra.Mutation[cassandra.TripRow]) error {
	return request(s, cassandra.TableTrips, rows)
}

func (s *requests) ApplyHours(_ context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error {
	return request(s, cassandra.TableHours, rows)
}

func (s *requests) ApplyDeviceDays(_ context.Context, _ string, rows []cassandra.Mutation[cassandra.DeviceDay]) error {
	return request(s, cassandra.TableDeviceDays, rows)
}

func write(t *testing.T, s *requests, c *Changes, guard func(context.Context) error) error {
	logger, _ := logtest.NewNullLogger()
	w := Writer{Store: s, Exec: executor.New(executor.Options{MaxInFlight: 4, RetryRate: 1}, logger, prometheus.NewRegistry(), time.Now)}
	_, err := w.Write(t.Context(), c, guard)
	return err
}

func always(context.Context) error { return nil }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

// inOneBucket names devices whose rows are in one partition of each table.
func inOneBucket(n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		if id := fmt.Sprint("v", i); cassandra.OpenAlertBucket(id) == 0 && cassandra.HourBucket(id) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestRowsAreGroupedByPartition(t *testing.T) {
	day := 24 * HourMs
	s, c := &requests{}, &Changes{}
	for _, device := range inOneBucket(2) {
		for i := range int64(3) {
			c.PutHour(cassandra.HourRow{FleetID: "north", HourMs: noon + i*HourMs, DeviceID: device}, 1)
			c.PutTrip(device, cassandra.TripRow{StartMs: noon + i*day, Kind: "trip"}, 1)
			c.PutDay(device, cassandra.DeviceDay{Day: cassandra.Day(i)}, 1)
		}
		c.PutTrip(device, cassandra.TripRow{StartMs: noon - 2*day, Kind: "trip", Open: true}, 1) // in February
		c.PutAlert(cassandra.Alert{FleetID: "north", DeviceID: device, Severity: "LOW", OpenedMs: noon}, 1)
		c.PutAlert(cassandra.Alert{FleetID: "north", DeviceID: device, Severity: "HIGH", OpenedMs: noon + day}, 1)
		c.PutOpenAlert(cassandra.Alert{FleetID: "north", DeviceID: device}, 1)
	}
	require.Equal(t, 6, c.EndedTrips(rollup.KindTrip))
	require.Zero(t, c.EndedTrips(rollup.KindStop))
	require.Len(t, slices.Collect(c.Hours()), 3)
	require.NoError(t, write(t, s, c, always))
	slices.Sort(s.list)
	want := slices.Concat(
		slices.Repeat([]string{cassandra.TableHours + " 2"}, 3),        // one for each fleet, hour and bucket
		slices.Repeat([]string{cassandra.TableTrips + " 3"}, 2),        // one for each device and month
		slices.Repeat([]string{cassandra.TableTrips + " 1"}, 2),        // the trips of February
		slices.Repeat([]string{cassandra.TableDeviceDays + " 3"}, 2),   // one for each device
		slices.Repeat([]string{cassandra.TableDeviceAlerts + " 2"}, 2), // one for each device and month
		slices.Repeat([]string{cassandra.TableAlerts + " 2"}, 2),       // one for each fleet, day and severity
		[]string{cassandra.TableOpenAlerts + " 2"},                     // one for each fleet and bucket
	)
	slices.Sort(want)
	require.Equal(t, want, s.list)
}

func TestMutationsAreBounded(t *testing.T) {
	s, c := &requests{}, &Changes{}
	for _, device := range inOneBucket(2*mutationRows + 7) {
		c.PutHour(cassandra.HourRow{FleetID: "north", HourMs: noon, DeviceID: device}, 1)
	}
	require.NoError(t, write(t, s, c, always))
	slices.Sort(s.list)
	require.Equal(t, []string{cassandra.TableHours + " 50", cassandra.TableHours + " 50", cassandra.TableHours + " 7"}, s.list)
}

// A vehicle that jumps between two places has more trips in a month than one request may have rows, 65,535.
func TestManyTripsOfADeviceAreSeveralMutations(t *testing.T) {
	s, c := &requests{}, &Changes{}
	for i := range int64(70_000) {
		c.PutTrip("v1", cassandra.TripRow{StartMs: noon + 4000*i, Kind: "trip"}, 1)
	}
	require.NoError(t, write(t, s, c, always))
	require.Equal(t, slices.Repeat([]string{cassandra.TableTrips + " 50"}, 70_000/mutationRows), s.list)
}

// rejects can't write rows of one device.
type rejects struct {
	requests
	device string
	reason cassandra.Reason
}

func (s *rejects) ApplyHours(ctx context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error {
	for _, r := range rows {
		if r.Row.DeviceID == s.device {
			return &cassandra.Error{Reason: s.reason, Err: errDown}
		}
	}
	return s.requests.ApplyHours(ctx, rows)
}

func TestBadRowFailsOnlyItsDevice(t *testing.T) {
	logger, _ := logtest.NewNullLogger()
	for reason, own := range map[cassandra.Reason]bool{
		cassandra.ReasonOther: true, cassandra.ReasonInvalid: true, cassandra.ReasonUnauthorized: false,
	} {
		s, c := &rejects{device: "v2", reason: reason}, &Changes{}
		for _, device := range []string{"v1", "v2", "v3"} {
			c.PutHour(cassandra.HourRow{FleetID: "north", HourMs: noon, DeviceID: device}, 1)
			c.PutAlert(cassandra.Alert{FleetID: "north", DeviceID: device, OpenedMs: noon}, 1)
		}
		w := Writer{Store: s, Exec: executor.New(executor.Options{MaxInFlight: 4, RetryRate: 1}, logger, prometheus.NewRegistry(), time.Now)}
		failed, err := w.Write(t.Context(), c, always)
		if !own {
			require.ErrorIs(t, err, errDown, "it fails every device")
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []string{"v2"}, slices.Collect(maps.Keys(failed)))
		slices.Sort(s.list)
		require.Equal(t, []string{
			cassandra.TableDeviceAlerts + " 1", cassandra.TableDeviceAlerts + " 1", cassandra.TableDeviceAlerts + " 1",
			cassandra.TableAlerts + " 3", cassandra.TableHours + " 1", cassandra.TableHours + " 1",
		}, s.list)
	}
}

func TestRowOfTheDeviceIsWrittenFirstAndDeletedLast(t *testing.T) {
	s, c := &requests{}, &Changes{}
	a := cassandra.Alert{FleetID: "north", DeviceID: "v1", OpenedMs: noon}
	c.DeleteDeviceAlert(a, 1)
	c.PutOpenAlert(a, 1)
	c.PutAlert(a, 1)
	require.NoError(t, write(t, s, c, always))
	require.Equal(t, []string{
		cassandra.TableDeviceAlerts + " 1", cassandra.TableAlerts + " 1", cassandra.TableOpenAlerts + " 1", "delete " + cassandra.TableDeviceAlerts + " 1",
	}, s.list)

	s = &requests{fail: cassandra.TableAlerts}
	require.ErrorIs(t, write(t, s, c, always), errDown)
	require.Equal(t, []string{cassandra.TableDeviceAlerts + " 1"}, s.list, "nothing follows a failure")
}

func TestNothingIsWrittenWithoutTheGuard(t *testing.T) {
	s, c := &requests{}, &Changes{}
	c.PutAlert(cassandra.Alert{FleetID: "north", DeviceID: "v1", OpenedMs: noon}, 1)
	errFenced := errors.New("fenced")
	require.ErrorIs(t, write(t, s, c, func(context.Context) error { return errFenced }), errFenced)
	require.Empty(t, s.list)
}

func TestSumOfAnHour(t *testing.T) {
	_, found := SumHours(nil)
	require.False(t, found)
	rows := []cassandra.HourRow{
		{FleetID: "north", HourMs: noon, DeviceID: "v2", DistanceKm: .2, SpeedSumKmh: 50, SpeedCount: 1, Records: 3, MaxSpeedKmh: 50, DrivingS: 10.4, Alerts: 2},
		{FleetID: "north", HourMs: noon, DeviceID: "v1", DistanceKm: .1, SpeedSumKmh: 100, SpeedCount: 2, Records: 2, MaxSpeedKmh: 70, DrivingS: .8},
		{FleetID: "north", HourMs: noon, DeviceID: "v3", Alerts: 1}, // silent: an alert and no record
	}
	sum, found := SumHours(rows)
	require.True(t, found)
	require.InDelta(t, .3, sum.TotalDistanceKm, 1e-9)
	require.Equal(t, cassandra.DayOf(noon), sum.Day)
	require.Equal(t, int32(12), sum.Hour)
	require.Equal(t, 50.0, *sum.AvgSpeedKmh)
	require.Equal(t, 70.0, *sum.MaxSpeedKmh)
	require.Equal(t, int32(3), sum.AlertsCount)
	require.Equal(t, int32(2), sum.ActiveDevicesCount, "only devices with records")
	require.Equal(t, int64(5), *sum.RecordsCount)
	require.Equal(t, int64(11), *sum.DrivingS)

	silent, found := SumHours(rows[2:])
	require.True(t, found)
	require.Nil(t, silent.AvgSpeedKmh)
	require.Nil(t, silent.MaxSpeedKmh)
	require.False(t, SameAnalytics(sum, silent))
}

func TestSumDoesNotDependOnTheOrderOfDevices(t *testing.T) {
	var rows []cassandra.HourRow
	for i := range 50 {
		km := math.Pow(1.7, float64(i%20)) / 3
		rows = append(rows, cassandra.HourRow{FleetID: "north", HourMs: noon, DeviceID: fmt.Sprint(i), DistanceKm: km, SpeedSumKmh: 1 / km, SpeedCount: 1, DrivingS: km})
	}
	forward, _ := SumHours(slices.Clone(rows))
	slices.Reverse(rows)
	backward, _ := SumHours(rows)
	require.True(t, SameAnalytics(forward, backward))
}

func TestRowsThatDifferOnlyInWhatRecordsDoNotSayAreTheSame(t *testing.T) {
	a := cassandra.Alert{FleetID: "north", DeviceID: "v1", OpenedMs: noon, Notify: true}
	b := a
	b.Notify, b.Resolved = false, true
	require.True(t, SameAlert(a, b))
	b.Message = "other"
	require.False(t, SameAlert(a, b))

	fast, equallyFast, slow := 80.0, 80.0, 70.0
	trip := func(speed *float64) cassandra.TripRow { return cassandra.TripRow{StartMs: noon, MaxSpeedKmh: speed} }
	require.True(t, SameTrip(trip(&fast), trip(&equallyFast)), "the values count, not the pointers")
	require.True(t, SameTrip(trip(nil), trip(nil)))
	require.False(t, SameTrip(trip(&fast), trip(&slow)))
	require.False(t, SameTrip(trip(&fast), trip(nil)))
}

func TestStateOfAnotherVersionIsIgnored(t *testing.T) {
	text := (&State{}).Encode()
	_, ok := Decode(text)
	require.True(t, ok)
	for _, other := range []string{"", "0:" + string(text[2:]), string(text[2:]), "1:{", "1:[]"} {
		_, ok := Decode([]byte(other))
		require.False(t, ok, other)
	}
}
