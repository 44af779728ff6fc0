package reader

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// fakeStore counts its calls. The methods that a test does not set panic.
type fakeStore struct {
	Store
	calls   []string
	devices int // of each fleet
	rows    map[string][]cassandra.Telemetry
	err     error
	closed  bool
}

func (f *fakeStore) call(format string, args ...any) error {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeStore) Fleets(context.Context) ([]string, error) { return []string{"a"}, f.call("fleets") }

func (f *fakeStore) LatestOfFleet(_ context.Context, fleet string) ([]cassandra.Telemetry, error) {
	return f.rows[fleet], f.call("latest %s", fleet)
}

func (f *fakeStore) Devices(_ context.Context, fleet string, limit int, page string) (cassandra.Page[cassandra.Device], error) {
	first := 0
	if page != "" {
		_, _ = fmt.Sscan(page, &first)
	}
	var p cassandra.Page[cassandra.Device]
	for i := first; i < min(first+limit, f.devices); i++ {
		p.Rows = append(p.Rows, cassandra.Device{FleetID: fleet, DeviceID: fmt.Sprint(i)})
	}
	if first+limit < f.devices {
		p.Next = fmt.Sprint(first + limit)
	}
	return p, f.call("devices %s from %d", fleet, first)
}

func (f *fakeStore) TrackOfDay(_ context.Context, device, _ string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error) {
	first := day.Time().UnixMilli()
	return &cassandra.Track{}, f.call("track %s %s from %d to %d limit %d", device, day, fromMs-first, toMs-first, limit)
}

func (f *fakeStore) Analytics(_ context.Context, fleet string, from, to cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	return []cassandra.AnalyticsRow{{FleetID: fleet}}, f.call("hours %s %s %s", fleet, from, to)
}

func (f *fakeStore) Alerts(_ context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	return nil, f.call("alerts %s", q.FleetID)
}

func (f *fakeStore) Close() { f.closed = true }

var now = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

func testBudget() *memory.Budget {
	return memory.NewBudget(1<<30, prometheus.NewGauge(prometheus.GaugeOpts{}))
}

func newReader(t *testing.T, store *fakeStore) (*Reader, *prometheus.CounterVec) {
	t.Helper()
	s := &settings.Settings{QueryTimeout: time.Second, LatestCache: time.Minute, ClosedDayCache: 10 * time.Minute, CacheBytes: 1 << 20, MaxRowsRead: 1000}
	m := NewRequests(prometheus.NewRegistry())
	r, err := New(s, testBudget(), m, func(context.Context) (Store, error) { return store, nil }, func() time.Time { return now })
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r, m
}

func TestLatestIsCached(t *testing.T) {
	store := &fakeStore{rows: map[string][]cassandra.Telemetry{"a": {{DeviceID: "d"}}}}
	r, m := newReader(t, store)
	ctx, cost := WithCost(t.Context())
	for range 3 {
		rows, err := r.Latest(ctx, "a")
		require.NoError(t, err)
		assert.Len(t, rows, 1)
	}
	assert.Equal(t, []string{"latest a"}, store.calls)
	assert.Equal(t, 2, cost().CacheHits)
	assert.Equal(t, 2.0, testutil.ToFloat64(m.WithLabelValues(cacheLatest, "hit")))
	assert.Equal(t, 1.0, testutil.ToFloat64(m.WithLabelValues(cacheLatest, "miss")))
	assert.Equal(t, 9, testutil.CollectAndCount(m), "every series exists")
}

func TestFailedReadsAreNotCached(t *testing.T) {
	store := &fakeStore{err: errors.New("down")}
	r, _ := newReader(t, store)
	for range 2 {
		_, err := r.Fleets(t.Context())
		require.EqualError(t, err, "down")
	}
	store.err = nil
	fleets, err := r.Fleets(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, fleets)
	assert.Len(t, store.calls, 3)
}

func TestAlertsAreNeverCached(t *testing.T) {
	store := &fakeStore{}
	r, _ := newReader(t, store)
	for range 2 {
		_, err := r.Alerts(t.Context(), cassandra.AlertQuery{FleetID: "a"})
		require.NoError(t, err)
	}
	assert.Len(t, store.calls, 2)
}

func TestDevicesReadsPagesUpToTheLimit(t *testing.T) {
	for limit, want := range map[int]struct{ rows, pages int }{10: {11, 1}, 6000: {6001, 2}, 20_000: {12_000, 3}} {
		store := &fakeStore{devices: 12_000}
		r, _ := newReader(t, store)
		r.settings.MaxRows = limit
		rows, err := r.Devices(t.Context(), "a")
		require.NoError(t, err)
		assert.Len(t, rows, want.rows, "one more than the limit shows that there are others")
		assert.Len(t, store.calls, want.pages)
	}
}

func TestDay(t *testing.T) {
	closed, today := cassandra.DayOf(now.UnixMilli())-2, cassandra.DayOf(now.UnixMilli())
	const hour, dayEnd = int64(3_600_000), int64(86_399_999)
	first := closed.Time().UnixMilli()
	store := &fakeStore{}
	r, _ := newReader(t, store)
	read := func(day cassandra.Day, fromMs, toMs int64) {
		t.Helper()
		_, err := r.Day(t.Context(), "d", "", day, fromMs, toMs, 50)
		require.NoError(t, err)
	}
	read(closed, first+hour, first+2*hour)
	assert.Equal(t, fmt.Sprintf("track d %s from %d to %d limit 50", closed, hour, 2*hour), store.calls[0], "a short range is read alone")
	read(closed, first+hour, first+10*hour)
	assert.Equal(t, fmt.Sprintf("track d %s from 0 to %d limit 1000", closed, dayEnd), store.calls[1], "for a long range the whole day is read")
	read(closed, first+hour, first+2*hour)
	assert.Len(t, store.calls, 2, "the whole day is cached")
	read(today, today.Time().UnixMilli()-hour, today.Time().UnixMilli()+20*hour)
	read(today, today.Time().UnixMilli()-hour, today.Time().UnixMilli()+20*hour)
	assert.Equal(t, fmt.Sprintf("track d %s from 0 to %d limit 50", today, 20*hour), store.calls[2])
	assert.Len(t, store.calls, 4, "a day in progress is not cached")
}

func TestDayTTL(t *testing.T) {
	r, _ := newReader(t, &fakeStore{})
	today := cassandra.DayOf(now.UnixMilli())
	assert.Zero(t, r.dayTTL(today))
	assert.Equal(t, 10*time.Minute, r.dayTTL(today-1))
	now := now.Truncate(24 * time.Hour).Add(5 * time.Hour)
	r.now = func() time.Time { return now }
	assert.Equal(t, time.Minute, r.dayTTL(today-1), "late records are likely in the first hours")
}

func TestHoursOfClosedDaysAreCached(t *testing.T) {
	store := &fakeStore{}
	r, _ := newReader(t, store)
	for range 2 {
		_, err := r.Hours(t.Context(), "a", cassandra.DayOf(now.UnixMilli())-3)
		require.NoError(t, err)
	}
	assert.Len(t, store.calls, 1)
}

func TestReaderConnectsOnce(t *testing.T) {
	opened := 0
	store := &fakeStore{}
	var openErr error
	r, err := New(&settings.Settings{QueryTimeout: time.Second, CacheBytes: 1 << 20}, testBudget(), NewRequests(prometheus.NewRegistry()),
		func(context.Context) (Store, error) { opened++; return store, openErr }, time.Now)
	require.NoError(t, err)
	openErr = errors.New("refused")
	_, err = r.Fleets(t.Context())
	var connect *ConnectError
	require.ErrorAs(t, err, &connect)
	require.ErrorIs(t, err, openErr)
	openErr = nil
	for range 2 {
		_, err = r.Alerts(t.Context(), cassandra.AlertQuery{})
		require.NoError(t, err)
	}
	assert.Equal(t, 2, opened, "a failed attempt is repeated, a session is kept")
	r.Close()
	assert.True(t, store.closed)
	_, err = r.Alerts(t.Context(), cassandra.AlertQuery{})
	require.ErrorIs(t, err, ErrClosed)
}

func TestSharedReadsAreCounted(t *testing.T) {
	r, m := newReader(t, &fakeStore{})
	ctx, cost := WithCost(t.Context())
	started, release := make(chan struct{}), make(chan struct{})
	slow := func(context.Context, Store) (int, error) {
		close(started)
		<-release
		return 7, nil
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := readOnce(t.Context(), r, cacheDay, "k", 0, nil, slow)
		return err
	})
	<-started
	g.Go(func() error {
		value, err := readOnce(ctx, r, cacheDay, "k", 0, nil, slow)
		assert.Equal(t, 7, value)
		return err
	})
	require.Eventually(t, func() bool {
		r.flights.mu.Lock()
		defer r.flights.mu.Unlock()
		return r.flights.calls[cacheDay+" k"].waiters == 2
	}, 5*time.Second, time.Millisecond)
	close(release)
	require.NoError(t, g.Wait())
	assert.Equal(t, 1, cost().SharedReads)
	assert.Equal(t, 1.0, testutil.ToFloat64(m.WithLabelValues(cacheDay, "shared")))
}
