package bench

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"
)

// Forms of writes of the bare driver.
const (
	Grouped = "grouped" // rows of a partition share an unlogged batch
	Single  = "single"  // one statement for the history and one for the latest position of each record
)

// Driver writes a file of simulated vehicles with nothing but the driver, as the driver's documentation shows it. A
// loader is compared with it. Its records are in memory, grouped, before the clock starts.
type Driver struct {
	Nodes    Nodes
	Keyspace string
	File     string
	Form     string
	InFlight int // requests in parallel
	Rows     int // of one batch at most
}

// driverRow is a record as the driver gets it.
type driverRow struct {
	device, fleet, zone         string
	ts                          time.Time
	lat, lon                    float64
	speed, heading, temperature *float64
	battery                     *int
	day                         string
}

const (
	insertHistory = "INSERT INTO telemetry_by_device_day (device_id, day, ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
	insertLatest = "INSERT INTO latest_telemetry_by_device (device_id, last_ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"

	driverTTL = 30 * 24 * time.Hour
)

// Run writes the file and prints a report in the form of fleet-etl load --report json.
func (d Driver) Run(ctx context.Context, out io.Writer) error {
	rows, err := readRows(d.File)
	if err != nil {
		return err
	}
	session, err := d.Nodes.Connect(d.Keyspace)
	if err != nil {
		return err
	}
	defer session.Close()
	var parts [][]driverRow
	switch d.Form {
	case Grouped:
		parts = groupRows(rows, d.Rows)
	case Single:
		parts = groupRows(rows, 1)
	default:
		return fmt.Errorf("form %q: give %s or %s", d.Form, Grouped, Single)
	}
	cpu, started := ownCPU(), time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.InFlight)
	for _, part := range parts {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if d.Form == Single {
				return d.single(ctx, session, &part[0])
			}
			return d.batch(ctx, session, part)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took, writes := time.Since(started), len(parts)
	if d.Form == Single {
		writes *= 2
	}
	_, err = fmt.Fprintf(out, `{"records_stored": %d, "seconds": %f, "cpu_seconds": %f, "peak_memory_bytes": %d, "tables": {"all": {"writes": %d}}}`,
		len(rows), took.Seconds(), ownCPU()-cpu, peakMemory(os.Getpid()), writes)
	return err
}

// driverRetries are for nodes that have just started and time out.
var driverRetries = &gocql.SimpleRetryPolicy{NumRetries: 10}

func (d Driver) batch(ctx context.Context, session *gocql.Session, rows []driverRow) error {
	batch := session.NewBatch(gocql.UnloggedBatch).WithContext(ctx).RetryPolicy(driverRetries)
	batch.Cons = d.Nodes.Consistency()
	for i := range rows {
		batch.Query(insertHistory, rows[i].history()...)
	}
	return session.ExecuteBatch(batch)
}

func (d Driver) single(ctx context.Context, session *gocql.Session, r *driverRow) error {
	exec := func(statement string, values ...any) error {
		return session.Query(statement, values...).WithContext(ctx).Consistency(d.Nodes.Consistency()).RetryPolicy(driverRetries).Exec()
	}
	if err := exec(insertHistory, r.history()...); err != nil {
		return err
	}
	return exec(insertLatest, r.device, r.ts, r.fleet, r.lat, r.lon, r.speed, r.heading, r.battery, r.temperature, r.zone, r.ts.UnixMicro())
}

func (r *driverRow) history() []any {
	return []any{r.device, r.day, r.ts, r.fleet, r.lat, r.lon, r.speed, r.heading, r.battery, r.temperature, r.zone,
		r.ts.UnixMicro(), int((driverTTL - time.Since(r.ts)).Seconds())}
}

// readRows reads a file that fleet-etl generate wrote.
func readRows(path string) (rows []driverRow, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := csv.NewReader(file)
	head, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	column := map[string]int{}
	for i, name := range head {
		column[name] = i
	}
	for {
		fields, err := lines.Read()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		number := func(name string) *float64 {
			v, err := strconv.ParseFloat(fields[column[name]], 64)
			if err != nil {
				return nil // left out
			}
			return &v
		}
		r := driverRow{
			device: fields[column["device_id"]], fleet: fields[column["fleet_id"]], zone: fields[column["zone"]],
			speed: number("speed_kmh"), heading: number("heading_deg"), temperature: number("temp_c"),
		}
		lat, lon := number("lat"), number("lon")
		if r.ts, err = time.Parse(time.RFC3339Nano, fields[column["timestamp"]]); err != nil || lat == nil || lon == nil {
			return nil, fmt.Errorf("read %s line %d: bad record %q", path, len(rows)+2, fields)
		}
		r.lat, r.lon, r.day = *lat, *lon, r.ts.Format(time.DateOnly)
		if b := number("battery_pct"); b != nil {
			battery := int(*b)
			r.battery = &battery
		}
		rows = append(rows, r)
	}
}

// groupRows brings rows of a partition together, at most size of them. Groups are in the order in which they are full:
// a writer that sees all of the input would send them so.
func groupRows(rows []driverRow, size int) (groups [][]driverRow) {
	type partition struct{ device, day string }
	open := map[partition][]driverRow{}
	var order []partition
	for _, row := range rows {
		p := partition{row.device, row.day}
		if open[p] == nil {
			order = append(order, p)
		}
		if open[p] = append(open[p], row); len(open[p]) == size {
			groups = append(groups, open[p])
			open[p] = []driverRow{}
		}
	}
	for _, p := range order {
		if len(open[p]) > 0 {
			groups = append(groups, open[p])
		}
	}
	return groups
}

// ownCPU is the CPU time of this process, in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
