package plugin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// The caches, as metrics call them.
const (
	cacheLatest = "latest" // newest fixes
	cacheDay    = "day"    // days that are over
	cacheList   = "list"   // fleets, devices, zones, schema
)

// listCache is how long lists are kept: a new fleet may wait so long for its place in a menu.
const listCache = 10 * time.Second

// freshlyClosed is how long after its end a day is still likely to get late records; until then it is kept for a tenth
// of the time.
const freshlyClosed = 6 * time.Hour

// reader reads from the cluster for one data source: connected when first needed, cached, equal reads joined.
type reader struct {
	settings *settings
	metrics  *Metrics
	logger   logrus.FieldLogger
	registry prometheus.Registerer
	now      func() time.Time

	flights *flights
	cache   *otter.Cache[string, entry]

	mu     sync.Mutex
	store  *cassandra.Store
	closed bool
}

// entry is a cached value.
type entry struct {
	value any
	bytes int
	keep  time.Duration
}

func newReader(s *settings, m *Metrics, logger logrus.FieldLogger, registry prometheus.Registerer, now func() time.Time) (*reader, error) {
	cache, err := otter.New(&otter.Options[string, entry]{
		MaximumWeight:    s.cacheBytes,
		Weigher:          func(key string, e entry) uint32 { return uint32(min(len(key)+e.bytes+100, 1<<31)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration { return e.Value.keep }),
	})
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return &reader{
		settings: s, metrics: m, logger: logger, registry: registry, now: now,
		flights: newFlights(s.queryTimeout), cache: cache,
	}, nil
}

func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.store != nil {
		r.store.Close()
		r.store = nil
	}
	r.cache.StopAllGoroutines()
}

// connectError is a cluster that could not be connected to.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// open gives the session, and connects if there is none. Whoever comes meanwhile waits for the same attempt.
func (r *reader) open(ctx context.Context) (*cassandra.Store, error) {
	r.mu.Lock()
	store, closed := r.store, r.closed
	r.mu.Unlock()
	if closed {
		return nil, errDisposed
	}
	if store != nil {
		return store, nil
	}
	value, _, err := r.flights.do(ctx, "connect", func(ctx context.Context) (any, error) {
		store, err := cassandra.Open(ctx, r.settings.cluster, r.logger, r.registry)
		if err != nil {
			return nil, &connectError{err}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			store.Close()
			return nil, errDisposed
		}
		r.store = store
		return store, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*cassandra.Store), nil
}

// cost adds up what answering a query took. It is safe for concurrent use.
type cost struct {
	mu sync.Mutex
	cassandra.ReadTotals
	hits, shared int
}

func (c *cost) add(f cassandra.ReadTotals) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Partitions += f.Partitions
	c.Pages += f.Pages
	c.Rows += f.Rows
	c.Retries += f.Retries
	if c.Coordinators == nil {
		c.Coordinators = map[string]int{}
	}
	for node, n := range f.Coordinators {
		c.Coordinators[node] += n
	}
	room := max(statementsShown-len(c.Statements), 0)
	taken := min(room, len(f.Statements))
	c.Statements = append(c.Statements, f.Statements[:taken]...)
	c.More += f.More + len(f.Statements) - taken
}

func (c *cost) hit() {
	c.mu.Lock()
	c.hits++
	c.mu.Unlock()
}

func (c *cost) share() {
	c.mu.Lock()
	c.shared++
	c.mu.Unlock()
}

func (c *cost) coordinators() []string {
	return slices.Sorted(maps.Keys(c.Coordinators))
}

// statementsShown is how many statements the query inspector shows in full.
const statementsShown = 10

// through reads by way of a cache: what is cached is taken, what is under way is waited for, and what is read is kept
// for as long as keep says; for 0 not at all.
func through[T any](ctx context.Context, r *reader, c *cost, cache, key string, keep time.Duration, bytes func(T) int,
	read func(context.Context, *cassandra.Store) (T, error)) (T, error) {
	var zero T
	key = cache + " " + key
	if keep > 0 {
		if e, ok := r.cache.GetIfPresent(key); ok {
			c.hit()
			r.metrics.cache.WithLabelValues(cache, "hit").Inc()
			return e.value.(T), nil
		}
	}
	type result struct {
		value   T
		figures cassandra.ReadTotals
	}
	got, shared, err := r.flights.do(ctx, key, func(ctx context.Context) (any, error) {
		store, err := r.open(ctx)
		if err != nil {
			return nil, err
		}
		ctx, stats := cassandra.WithReadStats(ctx)
		value, err := read(ctx, store)
		if err != nil {
			return nil, err
		}
		if keep > 0 {
			n := bytes(value)
			if n == 0 {
				keep = min(keep, listCache) // nothing there yet: a load may be on its way
			}
			r.cache.Set(key, entry{value, n, keep})
		}
		return result{value, stats.Totals()}, nil
	})
	if err != nil {
		return zero, err
	}
	if shared {
		c.share()
		r.metrics.cache.WithLabelValues(cache, "shared").Inc()
	} else {
		c.add(got.(result).figures)
		r.metrics.cache.WithLabelValues(cache, "miss").Inc()
	}
	return got.(result).value, nil
}

// fleets is every fleet that the data source may see.
func (r *reader) fleets(ctx context.Context, c *cost) ([]string, error) {
	if len(r.settings.allowedFleets) > 0 {
		fleets := slices.Clone(r.settings.allowedFleets)
		slices.Sort(fleets)
		return slices.Compact(fleets), nil
	}
	return through(ctx, r, c, cacheList, "fleets", listCache, textBytes, func(ctx context.Context, s *cassandra.Store) ([]string, error) {
		return s.Fleets(ctx)
	})
}

func textBytes(texts []string) int {
	n := 0
	for _, t := range texts {
		n += len(t) + 16
	}
	return n
}

// latest is the newest fix of each device of a fleet, sorted by device. The rows are shared: they are only to be read.
func (r *reader) latest(ctx context.Context, c *cost, fleet string) ([]cassandra.Telemetry, error) {
	return through(ctx, r, c, cacheLatest, fleet, r.settings.latestCache, func(rows []cassandra.Telemetry) int { return 200 * len(rows) },
		func(ctx context.Context, s *cassandra.Store) ([]cassandra.Telemetry, error) {
			return s.LatestOfFleet(ctx, fleet)
		})
}

// devices is the devices of a fleet, at most limit and one more, which tells that there are others.
func (r *reader) devices(ctx context.Context, c *cost, fleet string, limit int) ([]cassandra.Device, error) {
	return through(ctx, r, c, cacheList, fmt.Sprintf("devices %d %s", limit, fleet), listCache, func(rows []cassandra.Device) int { return 150 * len(rows) },
		func(ctx context.Context, s *cassandra.Store) ([]cassandra.Device, error) {
			var rows []cassandra.Device
			for page := ""; ; {
				part, err := s.Devices(ctx, fleet, 5000, page)
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

func (r *reader) geofences(ctx context.Context, c *cost, fleet string) ([]cassandra.Geofence, error) {
	return through(ctx, r, c, cacheList, "geofences "+fleet, listCache,
		func(zones []cassandra.Geofence) int {
			n := 0
			for _, z := range zones {
				n += len(z.Geometry) + 200
			}
			return n
		},
		func(ctx context.Context, s *cassandra.Store) ([]cassandra.Geofence, error) {
			return s.Geofences(ctx, fleet)
		})
}

func (r *reader) schema(ctx context.Context, c *cost) ([]cassandra.Table, error) {
	return through(ctx, r, c, cacheList, "schema", listCache, func(tables []cassandra.Table) int { return 2000 * len(tables) },
		func(ctx context.Context, s *cassandra.Store) ([]cassandra.Table, error) { return s.Schema(ctx) })
}

// keepDay is how long what was read of a day is kept: not at all while the day lasts, since records come in.
func (r *reader) keepDay(day cassandra.Day) time.Duration {
	switch over := r.now().Sub((day + 1).Time()); {
	case over < 0:
		return 0
	case over < freshlyClosed:
		return r.settings.closedDayCache / 10
	default:
		return r.settings.closedDayCache
	}
}

// day is the fixes of a device in a day between two instants in Unix milliseconds. Of a day that is over, the whole is
// read and kept when the range takes a good part of it, since the next range will likely do so too.
func (r *reader) day(ctx context.Context, c *cost, device string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error) {
	first, last := day.Time().UnixMilli(), (day+1).Time().UnixMilli()-1
	fromMs, toMs = max(fromMs, first), min(toMs, last)
	keep := r.keepDay(day)
	whole := fmt.Sprintf("%s %s", device, day)
	if keep > 0 && (toMs-fromMs >= (last-first)/4 || r.cached(cacheDay, whole)) {
		t, err := through(ctx, r, c, cacheDay, whole, keep, trackBytes, func(ctx context.Context, s *cassandra.Store) (*cassandra.Track, error) {
			return s.TrackOfDay(ctx, device, day, first, last, r.settings.maxRowsRead)
		})
		if err != nil {
			return nil, err
		}
		return t.Between(fromMs, toMs), nil
	}
	part := fmt.Sprintf("%s %d %d %d", device, fromMs, toMs, limit)
	return through(ctx, r, c, cacheDay, part, 0, trackBytes, func(ctx context.Context, s *cassandra.Store) (*cassandra.Track, error) {
		return s.TrackOfDay(ctx, device, day, fromMs, toMs, limit)
	})
}

func trackBytes(t *cassandra.Track) int {
	if t.Len() == 0 {
		return 0
	}
	return t.Bytes()
}

func (r *reader) cached(cache, key string) bool {
	_, ok := r.cache.GetEntryQuietly(cache + " " + key)
	return ok
}

// hours is the hourly figures of a fleet in a day.
func (r *reader) hours(ctx context.Context, c *cost, fleet string, day cassandra.Day) ([]cassandra.Hour, error) {
	return through(ctx, r, c, cacheDay, fmt.Sprintf("hours %s %s", fleet, day), r.keepDay(day), func(hours []cassandra.Hour) int { return 100 * len(hours) },
		func(ctx context.Context, s *cassandra.Store) ([]cassandra.Hour, error) {
			return s.Analytics(ctx, fleet, day, day)
		})
}

// alerts is the alerts that a query asks for, newest first. They are never kept: an alert of a day that is over may be
// resolved now.
func (r *reader) alerts(ctx context.Context, c *cost, q cassandra.AlertQuery) ([]cassandra.Alert, error) {
	key := fmt.Sprintf("alerts %s %d %d %v %d", q.FleetID, q.From.UnixMilli(), q.To.UnixMilli(), q.Severities, q.Limit)
	return through(ctx, r, c, cacheDay, key, 0, nil, func(ctx context.Context, s *cassandra.Store) ([]cassandra.Alert, error) { return s.Alerts(ctx, q) })
}

// rows runs a statement that the guard has let through.
func (r *reader) rows(ctx context.Context, c *cost, statement string, limit int) (cassandra.Result, error) {
	return through(ctx, r, c, cacheDay, fmt.Sprintf("raw %d %s", limit, statement), 0, nil,
		func(ctx context.Context, s *cassandra.Store) (cassandra.Result, error) {
			return s.Select(ctx, statement, limit)
		})
}
