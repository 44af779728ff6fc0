package hourly

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
)

const skew = 10 * time.Second

// countingStore notes the rows of each write of sums.
type countingStore struct {
	*fakestore.View
	mu     sync.Mutex
	writes []int
	reads  int
	onRead func()
	err    error         // of reads
	bad    string        // fleet whose rows can't be read
	took   time.Duration // a read takes as long
	reason cassandra.Reason
}

func (s *countingStore) Hours(ctx context.Context, fleet string, hourMs int64) ([]cassandra.HourRow, error) {
	time.Sleep(s.took)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.onRead != nil {
		s.onRead()
	}
	if s.err != nil {
		return nil, s.err
	}
	if fleet == s.bad {
		return nil, &cassandra.Error{Op: "read hours", Reason: s.reason, Err: errors.New("bad row")}
	}
	return s.View.Hours(ctx, fleet, hourMs)
}

func (s *countingStore) ApplyAnalytics(ctx context.Context, rows []cassandra.Mutation[cassandra.AnalyticsRow]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, len(rows))
	return s.View.ApplyAnalytics(ctx, rows)
}

type fixture struct {
	*Sums
	store  *countingStore
	stamps *stamp.Clock
	claims *claims.Claims
}

// simulated runs a test with sums and an instance that sends heartbeats, in simulated time.
func simulated(t *testing.T, run func(t *testing.T, f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		logger, _ := logtest.NewNullLogger()
		reg := prometheus.NewRegistry()
		exec := executor.New(executor.Options{MaxInFlight: 4, RetryRate: 1}, logger, reg, time.Now)
		f := &fixture{store: &countingStore{View: fakestore.New().View(nil)}, stamps: stamp.New(time.Now)}
		f.claims = claims.New(claims.Options{
			Role: cassandra.RoleStream, Heartbeat: 5 * time.Second, Lease: 10 * time.Second, FenceAfter: 20 * time.Second, MaxClockSkew: skew,
		}, executor.Views[claims.Store]{Strong: f.store, Fallback: f.store}, exec, f.stamps, logger, reg, time.Now)
		f.Sums = New(skew, executor.Views[Store]{Strong: f.store, Fallback: f.store}, exec, f.stamps, logger, reg, time.Now)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- f.claims.Run(ctx) }()
		run(t, f)
		cancel()
		require.NoError(t, <-ended)
	})
}

func (f *fixture) lease(t *testing.T) claims.Lease {
	t.Helper()
	lease, err := f.claims.Confirm(t.Context())
	require.NoError(t, err)
	return lease
}

// put stores what a device adds to an hour of the first days of 1970.
func (f *fixture) put(t *testing.T, fleet string, hour int64, device string, km float64) cassandra.FleetHour {
	t.Helper()
	row := cassandra.HourRow{FleetID: fleet, HourMs: hour * 3_600_000, DeviceID: device, DistanceKm: km, Records: 1}
	require.NoError(t, f.store.ApplyHours(t.Context(), cassandra.Put(1, row)))
	return cassandra.FleetHour{FleetID: fleet, HourMs: row.HourMs}
}

func (f *fixture) sums() map[cassandra.FleetHour]float64 {
	sums := map[cassandra.FleetHour]float64{}
	for _, r := range fakestore.List[cassandra.AnalyticsRow](f.store.Store, cassandra.TableAnalytics, "") {
		sums[cassandra.FleetHour{FleetID: r.FleetID, HourMs: r.Day.Time().UnixMilli() + int64(r.Hour)*3_600_000}] = r.TotalDistanceKm
	}
	return sums
}

func TestHourThatCannotBeReadCostsOnlyItself(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonOther, cassandra.ReasonFailure, cassandra.ReasonTimeout} {
		t.Run(string(reason), func(t *testing.T) { testHourThatCannotBeRead(t, reason) })
	}
}

func testHourThatCannotBeRead(t *testing.T, reason cassandra.Reason) {
	simulated(t, func(t *testing.T, f *fixture) {
		f.store.reason = reason
		one, other := f.put(t, "north", 30, "v1", 1), f.put(t, "south", 30, "v2", 2)
		f.store.bad = "south"
		f.Add(slices.Values([]cassandra.FleetHour{one, other}))
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Equal(t, map[cassandra.FleetHour]float64{one: 1}, f.sums())
		require.False(t, f.Due(), "nothing waits for it")
		require.Equal(t, []cassandra.FleetHour{other}, f.Failed())
		require.Zero(t, testutil.ToFloat64(f.last), "not everything is up to date")
		f.store.bad = ""
		time.Sleep(retryAfter)
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Equal(t, map[cassandra.FleetHour]float64{one: 1, other: 2}, f.sums())
		require.Empty(t, f.Failed())
		require.NotZero(t, testutil.ToFloat64(f.last))
	})
}

func TestSumsAreWrittenOncePerFleetAndDay(t *testing.T) {
	simulated(t, func(t *testing.T, f *fixture) {
		one := f.put(t, "north", 30, "v1", 1)
		f.put(t, "north", 30, "v2", 2)
		two, three, four := f.put(t, "north", 31, "v1", 4), f.put(t, "north", 50, "v1", 8), f.put(t, "south", 31, "v3", 16)
		f.put(t, "south", 32, "v3", 32) // not due
		hours := []cassandra.FleetHour{one, two, three, four, one}
		f.Add(slices.Values(hours))
		require.True(t, f.Due())
		require.False(t, f.Done(hours))
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Equal(t, map[cassandra.FleetHour]float64{one: 3, two: 4, three: 8, four: 16}, f.sums())
		slices.Sort(f.store.writes)
		require.Equal(t, []int{1, 1, 2}, f.store.writes)
		require.False(t, f.Due())
		require.True(t, f.Done(hours))
		require.Equal(t, 4.0, testutil.ToFloat64(f.hours))

		reads := f.store.reads
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Equal(t, reads, f.store.reads, "nothing is due")
	})
}

// A fleet that changes all hours of its retention does not delay the hours of another one.
func TestHoursOfFleetsAreSummedInTurn(t *testing.T) {
	simulated(t, func(t *testing.T, f *fixture) {
		var hours []cassandra.FleetHour
		for h := range int64(720) {
			hours = append(hours, f.put(t, "flood", h, "v1", 1))
		}
		other := f.put(t, "north", 100, "v2", 2)
		f.Add(slices.Values(append(hours, other)))
		f.store.took = time.Second // 8 in parallel
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 5*time.Second))
		require.Contains(t, f.sums(), other)
		require.Less(t, f.store.reads, 100, "one flush interval")
		require.True(t, f.Due())
		require.Equal(t, map[string]bool{"flood": true}, f.DueFleets())
		require.Contains(t, f.sums(), hours[719], "the newest first")
		require.Zero(t, testutil.ToFloat64(f.last), "not everything is up to date")
		for f.Due() {
			require.NoError(t, f.Run(t.Context(), f.lease(t), false, 5*time.Second))
		}
		require.Len(t, f.sums(), 721)
		require.Len(t, f.store.writes, 31, "one for each fleet and day")
		require.NotZero(t, testutil.ToFloat64(f.last))
	})
}

func TestSumOfAnHourWithoutRowsIsDeleted(t *testing.T) {
	simulated(t, func(t *testing.T, f *fixture) {
		hour := f.put(t, "north", 30, "v1", 1)
		f.Add(slices.Values([]cassandra.FleetHour{hour}))
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Len(t, f.sums(), 1)
		for _, c := range f.store.Cells(cassandra.TableHours) {
			c.Deleted = c.Wrote
		}
		f.Add(slices.Values([]cassandra.FleetHour{hour}))
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Empty(t, f.sums())
	})
}

// Another instance may sum an hour with a clock that is ahead. The sum is written again when that clock is passed.
func TestHoursAreSummedAgainWhenClocksMayDiffer(t *testing.T) {
	for name, add := range map[string]func(t *testing.T, f *fixture, hour cassandra.FleetHour){
		"with peers": func(t *testing.T, f *fixture, hour cassandra.FleetHour) {
			f.Add(slices.Values([]cassandra.FleetHour{hour}))
			require.NoError(t, f.Run(t.Context(), f.lease(t), true, 0))
			require.Equal(t, 1, f.store.reads)
		},
		"left by another": func(_ *testing.T, f *fixture, hour cassandra.FleetHour) {
			f.AddLater([]cassandra.FleetHour{hour})
			f.store.reads++
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, f *fixture) {
				hour := f.put(t, "north", 30, "v1", 1)
				f.lease(t)
				add(t, f, hour)
				require.False(t, f.Due())
				require.Equal(t, []cassandra.FleetHour{hour}, f.Later())
				require.False(t, f.Done([]cassandra.FleetHour{hour}))
				time.Sleep(skew - time.Second)
				require.NoError(t, f.Run(t.Context(), f.lease(t), true, 0))
				require.Equal(t, 1, f.store.reads, "too early")
				time.Sleep(time.Second)
				require.NoError(t, f.Run(t.Context(), f.lease(t), true, 0))
				require.Equal(t, 2, f.store.reads)
				require.Len(t, f.sums(), 1)
				require.Empty(t, f.Later(), "once")
				require.True(t, f.Done([]cassandra.FleetHour{hour}))
			})
		})
	}
}

func TestFailedSumStaysDue(t *testing.T) {
	simulated(t, func(t *testing.T, f *fixture) {
		hour := f.put(t, "north", 30, "v1", 1)
		f.Add(slices.Values([]cassandra.FleetHour{hour}))
		f.store.err = errors.New("down")
		require.ErrorIs(t, f.Run(t.Context(), f.lease(t), false, 0), f.store.err)
		require.True(t, f.Due())
		require.Zero(t, testutil.ToFloat64(f.hours))
		f.store.err = nil
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		require.Len(t, f.sums(), 1)
	})
}

func TestFencedInstanceWritesNoSum(t *testing.T) {
	simulated(t, func(t *testing.T, f *fixture) {
		empty := cassandra.FleetHour{FleetID: "north", HourMs: 0}
		hours := []cassandra.FleetHour{f.put(t, "north", 30, "v1", 1), empty}
		f.Add(slices.Values(hours))
		lease := f.lease(t)
		require.NoError(t, f.store.FenceInstance(t.Context(), f.claims.InstanceID()))
		time.Sleep(time.Minute)
		require.ErrorIs(t, f.Run(t.Context(), lease, false, 0), claims.ErrFenced)
		require.Empty(t, f.sums())
		require.True(t, f.Due())
	})
}

// Of two instances that sum an hour, the one that read last wins. So the timestamp precedes the read.
func TestTimestampOfASumPrecedesItsRead(t *testing.T) {
	simulated(t, func(t *testing.T, f *fixture) {
		hour := f.put(t, "north", 30, "v1", 1)
		var read int64
		f.store.onRead = func() { read = f.stamps.Next() }
		f.Add(slices.Values([]cassandra.FleetHour{hour}))
		require.NoError(t, f.Run(t.Context(), f.lease(t), false, 0))
		cells := f.store.Cells(cassandra.TableAnalytics)
		require.Len(t, cells, 1)
		require.Less(t, cells[0].Wrote, read)
	})
}
