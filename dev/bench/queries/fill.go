package queries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

const (
	fleetID = "fleet-001"

	denseVehicles = 10
	denseEvery    = 10 * time.Second
	sparseEvery   = time.Hour

	// What follows from one day of one vehicle. fleet-etl load leaves these numbers for 300 vehicles of the generator that
	// send every hour: 4,696 trips and stops and 2,855 alerts in 1,500 vehicle days, and 85 open alerts at the end.
	tripsPerDay      = 3
	tripsPerDenseDay = 40
	alertsPerDay     = 2
	openShare        = 0.28 // of the vehicles
	stateBytes       = 700

	hourDays = 7    // days with hours: each hour is a partition of its own, and no read spans several
	followed = 1000 // vehicles with states and alerts of their own, which are read by vehicle

	batchRows = 100
	inFlight  = 256
)

// Fill writes what a fleet would leave, with the statements and the batches that fleet-etl uses: many vehicles that send
// rarely, so that there are many partitions, and a few that send often, so that there are large ones. Derived rows are made
// up beside the telemetry: for the cost of a read, the number and the size of the rows matter.
type Fill struct {
	Session    *gocql.Session
	Statements []Statement
	Vehicles   int
	Days       int
	Now        time.Time
	Out        io.Writer
}

// Run fills the keyspace.
func (f *Fill) Run(ctx context.Context) error {
	if err := f.latest(ctx); err != nil {
		return fmt.Errorf("fill the latest rows: %w", err)
	}
	today := cassandra.DayOf(f.Now.UnixMilli())
	for day := today - cassandra.Day(f.Days) + 1; day <= today; day++ {
		started := time.Now()
		if err := f.day(ctx, day); err != nil {
			return fmt.Errorf("fill %s: %w", day, err)
		}
		fmt.Fprintf(f.Out, "filled %s in %s\n", day, time.Since(started).Round(time.Second))
	}
	return nil
}

func deviceID(n int) string {
	if n < denseVehicles {
		return fmt.Sprintf("dense-%04d", n)
	}
	return fmt.Sprintf("vehicle-%05d", n)
}

// row is a row of a vehicle that is written at its own time. Rows of one vehicle and time have the same values.
func (f *Fill) row(n int, at time.Time) row {
	return row{
		fleet: fleetID, device: deviceID(n), time: at, until: at, written: at, bucket: int(cassandra.Bucket(deviceID(n))),
		random: rand.New(rand.NewPCG(uint64(n), uint64(at.UnixMilli()))),
	}
}

// write runs a statement of a name for rows of one partition, and repeats it where a node is too busy.
func (f *Fill) write(ctx context.Context, name string, rows ...row) error {
	i := slices.IndexFunc(f.Statements, func(s Statement) bool { return s.Name == name })
	for part := range slices.Chunk(rows, batchRows) {
		var err error
		for range 20 {
			if _, err = exec(ctx, f.Session, f.Statements[i].CQL, gocql.LocalOne, nil, part...); err == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// each calls do for every number below n, many at a time.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// latest writes the registry, the map and the open alerts. Alerts of the last half day came and went: open ones lie
// among the tombstones of the others.
func (f *Fill) latest(ctx context.Context) error {
	if err := f.write(ctx, "insertFleet", f.row(0, f.Now)); err != nil {
		return err
	}
	for i := range 20 {
		r := f.row(i, f.Now)
		r.device = fmt.Sprintf("geofence-%02d", i) // its name
		if err := f.write(ctx, "insertGeofence", r); err != nil {
			return err
		}
	}
	var devices []row
	buckets := map[int][]row{}
	for n := range f.Vehicles {
		r := f.row(n, f.Now)
		devices, buckets[r.bucket] = append(devices, r), append(buckets[r.bucket], r)
	}
	err := errors.Join(f.write(ctx, "insertDeviceStatus", devices...), f.write(ctx, "insertDeviceSince", devices...))
	for _, rows := range buckets {
		err = errors.Join(err, f.write(ctx, "insertLatestByFleet", rows...))
	}
	if err != nil {
		return err
	}
	return each(ctx, f.Vehicles, func(ctx context.Context, n int) error {
		alert := f.row(n, f.Now.Add(-12*time.Hour))
		alert.bucket = int(cassandra.OpenAlertBucket(alert.device))
		err := errors.Join(f.write(ctx, "insertLatest", f.row(n, f.Now)), f.write(ctx, "insertOpenAlert", alert))
		if float64(n%100) >= 100*openShare {
			closed := alert
			closed.written = f.Now
			err = errors.Join(err, f.write(ctx, "deleteOpenAlert", closed))
		}
		return err
	})
}

// day fills a day with telemetry and with what follows from it.
func (f *Fill) day(ctx context.Context, day cassandra.Day) error {
	end := (day + 1).Time().Add(-time.Millisecond)
	if f.Now.Before(end) {
		end = f.Now
	}
	err := each(ctx, f.Vehicles, func(ctx context.Context, n int) error {
		r := rand.New(rand.NewPCG(uint64(n), uint64(day)))
		every, trips := sparseEvery, tripsPerDay
		if n < denseVehicles {
			every, trips = denseEvery, tripsPerDenseDay
		}
		err := f.write(ctx, "insertHistory", f.rows(n, day.Time().Add(time.Duration(r.Int64N(int64(every)))), end, every)...)
		err = errors.Join(err, f.write(ctx, "insertTrip", f.rows(n, day.Time(), end, 24*time.Hour/time.Duration(trips))...))
		if n < followed {
			err = errors.Join(err, f.write(ctx, "updateDeviceDay", f.row(n, end)))
		}
		for range alertsPerDay {
			at := day.Time().Add(time.Duration(r.Int64N(int64(end.Sub(day.Time())) + 1)))
			err = errors.Join(err, f.write(ctx, "insertFleetAlertEnded", f.row(n, at)))
			if n < followed {
				err = errors.Join(err, f.write(ctx, "insertDeviceAlert", f.row(n, at)))
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	hours := f.rows(0, day.Time(), end, time.Hour)
	if err := f.write(ctx, "insertAnalytics", hours...); err != nil {
		return err
	}
	if day <= cassandra.DayOf(f.Now.UnixMilli())-hourDays {
		return nil
	}
	return each(ctx, len(hours), func(ctx context.Context, i int) error {
		buckets := map[int][]row{}
		for n := range f.Vehicles {
			r := f.row(n, hours[i].time)
			r.bucket = int(cassandra.HourBucket(r.device))
			buckets[r.bucket] = append(buckets[r.bucket], r)
		}
		var err error
		for _, rows := range buckets {
			err = errors.Join(err, f.write(ctx, "insertHour", rows...))
		}
		return err
	})
}

// rows makes rows of a vehicle at regular times.
func (f *Fill) rows(n int, from, to time.Time, every time.Duration) (rows []row) {
	for at := from; !at.After(to); at = at.Add(every) {
		rows = append(rows, f.row(n, at))
	}
	return rows
}
