// Package reader reads fleet data from Cassandra for one data source. It connects on first use, caches results, and
// merges equal concurrent reads.
package reader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// Store is the part of the Cassandra store that the plugin reads.
type Store interface {
	Fleets(ctx context.Context) ([]string, error)
	LatestOfFleet(ctx context.Context, fleet string) ([]cassandra.Telemetry, error)
	Devices(ctx context.Context, fleet string, limit int, page string) (cassandra.Page[cassandra.Device], error)
	Geofences(ctx context.Context, fleet string) ([]cassandra.Geofence, error)
	Schema(ctx context.Context) ([]cassandra.Table, error)
	FleetsOf(ctx context.Context, device string, fleets []string) ([]string, error)
	TrackOfDay(ctx context.Context, device, fleet string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error)
	Analytics(ctx context.Context, fleet string, from, to cassandra.Day) ([]cassandra.AnalyticsRow, error)
	Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error)
	Select(ctx context.Context, statement string, limit int) (cassandra.Result, error)
	Close()
}

// listTTL is how long lists are cached: a new fleet appears in menus after at most this time.
const listTTL = 10 * time.Second

// lateRecords is how long after its end a day is still likely to receive late records. Until then its cache time is a
// tenth of the configured one.
const lateRecords = 6 * time.Hour

// devicePage is how many devices one page has.
const devicePage = 5000

// ErrClosed is returned by a reader whose data source was replaced.
var ErrClosed = errors.New("the settings of the data source have changed; try again")

// ConnectError reports that no connection to the cluster could be established.
type ConnectError struct{ err error }

func (e *ConnectError) Error() string { return e.err.Error() }
func (e *ConnectError) Unwrap() error { return e.err }

// Reader reads for one data source. It is safe for concurrent use. Results are shared between callers, who must not
// change them.
type Reader struct {
	settings *settings.Settings
	memory   *memory.Budget
	requests *prometheus.CounterVec // by cache and outcome
	open     func(context.Context) (Store, error)
	now      func() time.Time

	flights *singleflight
	cache   *otter.Cache[string, entry]

	mu     sync.Mutex
	store  Store
	closed bool
}

// New makes a reader that opens its store with open when it first reads. Reads take their memory from the budget.
func New(s *settings.Settings, budget *memory.Budget, requests *prometheus.CounterVec, open func(context.Context) (Store, error), now func() time.Time) (*Reader, error) {
	cache, err := otter.New(&otter.Options[string, entry]{
		MaximumWeight:    s.CacheBytes,
		Weigher:          func(key string, e entry) uint32 { return uint32(min(len(key)+e.bytes+100, 1<<31)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration { return e.Value.ttl }),
	})
	if err != nil {
		return nil, fmt.Errorf("create the read cache: %w", err)
	}
	return &Reader{settings: s, memory: budget, requests: requests, open: open, now: now, flights: newSingleflight(s.QueryTimeout), cache: cache}, nil
}

// Close closes the store. Later reads return ErrClosed.
func (r *Reader) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.store != nil {
		r.store.Close()
		r.store = nil
	}
	r.cache.StopAllGoroutines()
}

// connect returns the open store, or opens it. Concurrent callers share one attempt.
func (r *Reader) connect(ctx context.Context) (Store, error) {
	r.mu.Lock()
	store, closed := r.store, r.closed
	r.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if store != nil {
		return store, nil
	}
	value, _, err := r.flights.do(ctx, "connect", func(ctx context.Context) (any, error) {
		ctx, _ = cassandra.WithReadStats(ctx) // the queries of the connection do not count as reads of the caller
		store, err := r.open(ctx)
		if err != nil {
			return nil, &ConnectError{err}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			store.Close()
			return nil, ErrClosed
		}
		r.store = store
		return store, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(Store), nil
}

// Fleets returns every fleet in the keyspace, sorted.
func (r *Reader) Fleets(ctx context.Context) ([]string, error) {
	return cachedRead(ctx, r, cacheList, "fleets", listTTL, rowBytes[string](150),
		func(ctx context.Context, s Store) ([]string, error) { return s.Fleets(ctx) })
}

// rowBytes estimates the size of rows that are about equally large.
func rowBytes[T any](bytesPerRow int) func([]T) int {
	return func(rows []T) int { return bytesPerRow * len(rows) }
}

// Latest returns the latest record of each device of a fleet, sorted by device.
func (r *Reader) Latest(ctx context.Context, fleet string) ([]cassandra.Telemetry, error) {
	return cachedRead(ctx, r, cacheLatest, fleet, r.settings.LatestCache, rowBytes[cassandra.Telemetry](200),
		func(ctx context.Context, s Store) ([]cassandra.Telemetry, error) { return s.LatestOfFleet(ctx, fleet) })
}

// Devices returns the devices of a fleet: as many as one query returns, and one more if there are others.
func (r *Reader) Devices(ctx context.Context, fleet string) ([]cassandra.Device, error) {
	limit := r.settings.MaxRows
	return cachedRead(ctx, r, cacheList, "devices "+fleet, listTTL, rowBytes[cassandra.Device](150),
		func(ctx context.Context, s Store) ([]cassandra.Device, error) {
			var rows []cassandra.Device
			for page := ""; ; {
				part, err := s.Devices(ctx, fleet, devicePage, page)
				if err != nil {
					return nil, err
				}
				rows = append(rows, part.Rows...)
				if page = part.Next; page == "" || len(rows) > limit {
					return rows[:min(len(rows), limit+1)], nil
				}
			}
		})
}

// Geofences returns the geofences of a fleet.
func (r *Reader) Geofences(ctx context.Context, fleet string) ([]cassandra.Geofence, error) {
	bytes := func(geofences []cassandra.Geofence) int {
		n := 0
		for i := range geofences {
			n += len(geofences[i].Geometry) + 200
		}
		return n
	}
	return cachedRead(ctx, r, cacheList, "geofences "+fleet, listTTL, bytes,
		func(ctx context.Context, s Store) ([]cassandra.Geofence, error) { return s.Geofences(ctx, fleet) })
}

// Schema returns the tables of the keyspace.
func (r *Reader) Schema(ctx context.Context) ([]cassandra.Table, error) {
	return cachedRead(ctx, r, cacheList, "schema", listTTL, rowBytes[cassandra.Table](2000),
		func(ctx context.Context, s Store) ([]cassandra.Table, error) { return s.Schema(ctx) })
}

// FleetsOf returns the given fleets that a device was ever in.
func (r *Reader) FleetsOf(ctx context.Context, device string, fleets []string) ([]string, error) {
	return cachedRead(ctx, r, cacheList, fmt.Sprint("fleets of ", device, fleets), listTTL, rowBytes[string](150),
		func(ctx context.Context, s Store) ([]string, error) { return s.FleetsOf(ctx, device, fleets) })
}

// dayTTL is how long the history of a day is cached: 0 until the day has ended, because records keep arriving.
func (r *Reader) dayTTL(day cassandra.Day) time.Duration {
	switch closed := r.now().Sub((day + 1).Time()); {
	case closed < 0:
		return 0
	case closed < lateRecords:
		return r.settings.ClosedDayCache / 10
	default:
		return r.settings.ClosedDayCache
	}
}

// Day returns the positions of a device in one UTC day between two instants in Unix milliseconds, both included, and at
// most limit of them, the newest: those of a fleet, or of every fleet if it is empty. It reads and caches the whole of a closed day if the range covers a quarter of it,
// because the next range probably does too. Callers bound the memory of the positions by dropping those of one day before they
// read others.
func (r *Reader) Day(ctx context.Context, device, fleet string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error) {
	first, last := day.Time().UnixMilli(), (day+1).Time().UnixMilli()-1
	fromMs, toMs = max(fromMs, first), min(toMs, last)
	key, ttl := fmt.Sprintf("%s %s %s", device, fleet, day), r.dayTTL(day)
	_, cached := r.cache.GetEntryQuietly(cacheDay + " " + key)
	if ttl > 0 && (cached || toMs-fromMs >= (last-first)/4) {
		t, err := readOnce(ctx, r, cacheDay, key, ttl, (*cassandra.Track).Bytes, func(ctx context.Context, s Store) (*cassandra.Track, error) {
			return s.TrackOfDay(ctx, device, fleet, day, first, last, r.settings.MaxRowsRead)
		})
		if err != nil {
			return nil, err
		}
		return t.Between(fromMs, toMs), nil
	}
	key = fmt.Sprintf("%s %s %d %d %d", device, fleet, fromMs, toMs, limit)
	return readOnce(ctx, r, cacheDay, key, 0, nil, func(ctx context.Context, s Store) (*cassandra.Track, error) {
		return s.TrackOfDay(ctx, device, fleet, day, fromMs, toMs, limit)
	})
}

// Hours returns the hourly statistics of a fleet in one UTC day.
func (r *Reader) Hours(ctx context.Context, fleet string, day cassandra.Day) ([]cassandra.AnalyticsRow, error) {
	return cachedRead(ctx, r, cacheDay, fmt.Sprintf("hours %s %s", fleet, day), r.dayTTL(day), rowBytes[cassandra.AnalyticsRow](100),
		func(ctx context.Context, s Store) ([]cassandra.AnalyticsRow, error) {
			return s.Analytics(ctx, fleet, day, day)
		})
}

// Alerts returns alerts, newest first. They are never cached, because an alert of a closed day can still be resolved.
func (r *Reader) Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	key := fmt.Sprintf("alerts %s %d %d %v %d", q.FleetID, q.From.UnixMilli(), q.To.UnixMilli(), q.Severities, q.Limit)
	bytes := func(alerts []cassandra.Alert) int {
		n := 0
		for i := range alerts {
			n += alerts[i].Bytes()
		}
		return n
	}
	return cachedRead(ctx, r, cacheDay, key, 0, bytes,
		func(ctx context.Context, s Store) ([]cassandra.Alert, error) { return s.Alerts(ctx, q) })
}

// Rows runs a statement that the query validator has accepted. It reads rows until they take so many bytes, and then sets
// Full. The query that appends them to others takes their memory.
func (r *Reader) Rows(ctx context.Context, statement string, limit, bytes int) (cassandra.Result, error) {
	return readOnce(ctx, r, cacheDay, fmt.Sprintf("raw %d %d %s", limit, bytes, statement), 0, nil,
		func(ctx context.Context, s Store) (cassandra.Result, error) {
			left, full := bytes, false
			take := cassandra.MemoryOf(ctx)
			result, err := s.Select(cassandra.WithMemory(ctx, func(bytes int) error {
				if left -= bytes; left < 0 {
					full = true
					return errFull
				}
				return take(bytes)
			}), statement, limit)
			if full {
				result.Full, err = true, nil
			}
			return result, err
		})
}

// errFull ends a read of rows.
var errFull = errors.New("the rows need too much memory")
