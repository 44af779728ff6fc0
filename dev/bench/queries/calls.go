package queries

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// call is one use of the store by the API, the data source or the pipeline. It may send several statements.
type call struct {
	name   string
	budget time.Duration // for the P95, on the machine that measures
	run    func(ctx context.Context, i int) (rows int, err error)
}

// Budgets of calls.
const (
	screen = 50 * time.Millisecond // a person waits, and the next refresh comes soon
	export = time.Second           // a person waits for a whole list
	rare   = time.Second           // verify, recompute, a writer that loads many devices
)

const aDay = 24 * time.Hour

// sparse is a vehicle that sends rarely: another one in each run, so that no cache answers all.
func (f *Fill) sparse(i int) string {
	return deviceID(denseVehicles + i*379%(min(f.Vehicles, followed)-denseVehicles))
}

// dense is a vehicle that sends often.
func (f *Fill) dense(i int) string { return deviceID(i % denseVehicles) }

// lastDay is one of the last days that are complete.
func (f *Fill) lastDay(i int) cassandra.Day {
	return cassandra.DayOf(f.Now.UnixMilli()) - 1 - cassandra.Day(i%max(1, min(20, f.Days-1)))
}

func count[T any](rows []T, err error) (int, error) { return len(rows), err }

// calls are the reads that send several statements.
func (f *Fill) calls(store *cassandra.Store) []call {
	type run = func(context.Context, int) (int, error)
	history := func(device func(int) string, back time.Duration, limit int) run {
		return func(ctx context.Context, i int) (int, error) {
			return count(store.History(ctx, cassandra.HistoryQuery{DeviceID: device(i), From: f.Now.Add(-back), To: f.Now, Limit: limit}))
		}
	}
	alerts := func(back time.Duration, limit int) run {
		return func(ctx context.Context, _ int) (int, error) {
			return count(store.Alerts(ctx, cassandra.AlertQuery{FleetID: fleetID, From: f.Now.Add(-back), To: f.Now, Limit: limit}))
		}
	}
	today := cassandra.DayOf(f.Now.UnixMilli())
	analytics := func(days cassandra.Day) run {
		return func(ctx context.Context, _ int) (int, error) {
			return count(store.Analytics(ctx, fleetID, today-days+1, today))
		}
	}
	return []call{
		{"map of the fleet", screen, func(ctx context.Context, _ int) (int, error) { return count(store.LatestOfFleet(ctx, fleetID)) }},
		{"track, 24 h, a position every 10 s, 1,000 rows", screen, history(f.dense, aDay, 1001)},
		{"track, 30 days, a position every 10 s, 1,000 rows", screen, history(f.dense, 30*aDay, 1001)},
		{"track, 30 days, a position per hour, 1,000 rows", screen, history(f.sparse, 30*aDay, 1001)},
		{"track, 7 days, a position every 10 s, all rows", export, history(f.dense, 7*aDay, 0)},
		{"alerts, 24 h, newest 1,000", screen, alerts(aDay, 1001)},
		{"alerts, 7 days, newest 1,000", screen, alerts(7*aDay, 1001)},
		{"alerts, 30 days, newest 1,000", screen, alerts(30*aDay, 1001)},
		{"alerts, 7 days, all", export, alerts(7*aDay, 0)},
		{"hourly statistics, 24 h", screen, analytics(2)},
		{"hourly statistics, 7 days", screen, analytics(7)},
		{"hourly statistics, 30 days", screen, analytics(30)},
		{"list of fleets", screen, func(ctx context.Context, _ int) (int, error) { return count(store.Fleets(ctx)) }},
		{"1,000 devices that a writer loads", rare, func(ctx context.Context, i int) (int, error) {
			var ids []string
			for j := range 1000 {
				ids = append(ids, f.sparse(i*1000+j))
			}
			rows, err := store.LatestWriteTimes(ctx, slices.Compact(slices.Sorted(slices.Values(ids))))
			return len(rows), err
		}},
	}
}

// batches are the statements that the pipeline sends for many rows of a partition at once.
var batches = map[string]int{"insertHistory": batchRows, "insertLatestByFleet": batchRows, "insertDeviceStatus": batchRows, "insertHour": batchRows, "insertTrip": 30}

// requests are what the i-th run of a statement is about. Rows that it writes belong to no fleet of people.
func (f *Fill) requests(st Statement, i int) []row {
	if st.writes() {
		rows := make([]row, max(1, batches[st.Name]))
		for j := range rows {
			r := f.row(i, f.Now.Add(-time.Duration(i*batchRows+j)*time.Millisecond))
			r.fleet, r.device, r.bucket, r.written = "_queries", "_queries-1", 0, f.Now
			if st.Table != cassandra.TableHistory && st.Table != cassandra.TableTrips { // their partition is not the device's
				r.device = fmt.Sprintf("_queries-%d", j)
			}
			rows[j] = r
		}
		return rows
	}
	day := f.lastDay(i)
	r := f.row(i, day.Time())
	r.until, r.limit, r.bucket, r.device = day.Time().Add(aDay-time.Millisecond), 1001, i%cassandra.FleetBuckets, f.sparse(i)
	switch st.Table {
	case cassandra.TableHistory:
		r.device = f.dense(i)
	case cassandra.TableOpenAlerts:
		r.bucket = int(cassandra.OpenAlertBucket(r.device))
	case cassandra.TableHours: // filled for the last days only
		r.bucket = int(cassandra.HourBucket(r.device))
		r.time = f.lastDay(i % 4).Time().Add(time.Duration(i%24) * time.Hour)
	case cassandra.TableTrips, cassandra.TableDeviceAlerts: // by month
		r.time = day.Month().Time()
	}
	return []row{r}
}
