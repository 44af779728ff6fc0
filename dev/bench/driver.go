package bench

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/gocql/gocql"
	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"
)

const (
	insertHistory = "INSERT INTO telemetry_by_device_day (device_id, day, ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"

	driverTTL      = 30 * 24 * time.Hour
	driverInFlight = 64  // batches in parallel
	driverRows     = 100 // of a batch; the default of ETL_BATCH_ROWS
)

// driverRow has the values of insertHistory.
type driverRow []any

// WriteWithDriver writes the history of simulated vehicles with nothing but the driver, as the driver's documentation
// shows it: rows of a partition share an unlogged batch. Loads are compared with it. The records are in memory, grouped,
// before the clock starts. It prints a Report, and needs a process of its own.
func WriteWithDriver(ctx context.Context, nodes Nodes, keyspace, file string, out io.Writer) error {
	rows, err := readRows(file)
	if err != nil {
		return err
	}
	session, err := nodes.Connect(keyspace)
	if err != nil {
		return err
	}
	defer session.Close()
	groups := groupRows(rows, driverRows)
	cpu, started := cpuSeconds(os.Getpid()), time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(driverInFlight)
	for _, group := range groups {
		g.Go(func() error {
			// The retries are for nodes that have just started and time out.
			batch := session.NewBatch(gocql.UnloggedBatch).WithContext(ctx).RetryPolicy(&gocql.SimpleRetryPolicy{NumRetries: 10})
			batch.Cons = nodes.Consistency()
			for _, row := range group {
				batch.Query(insertHistory, row...)
			}
			return session.ExecuteBatch(batch)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r := Report{
		Stored: int64(len(rows)), Seconds: time.Since(started).Seconds(), CPUSeconds: cpuSeconds(os.Getpid()) - cpu,
		Tables: map[string]TableWrites{"telemetry_by_device_day": {int64(len(groups))}},
	}
	if self, err := procfs.Self(); err == nil {
		status, _ := self.NewStatus()
		r.PeakMemory = int64(status.VmHWM)
	}
	return json.NewEncoder(out).Encode(r)
}

// readRows reads a file that fleet-etl generate wrote.
func readRows(path string) (rows []driverRow, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for n, fields := range lines[1:] {
		record := map[string]string{}
		for i, name := range lines[0] {
			record[name] = fields[i]
		}
		number := func(name string) any {
			v, err := strconv.ParseFloat(record[name], 64)
			if err != nil {
				return nil // left out
			}
			return v
		}
		ts, err := time.Parse(time.RFC3339Nano, record["timestamp"])
		if err != nil {
			return nil, fmt.Errorf("read %s line %d: bad timestamp %q", path, n+2, record["timestamp"])
		}
		battery := number("battery_pct")
		if percent, ok := battery.(float64); ok {
			battery = int(percent)
		}
		rows = append(rows, driverRow{
			record["device_id"], ts.Format(time.DateOnly), ts, record["fleet_id"], number("lat"), number("lon"), number("speed_kmh"), number("heading_deg"), battery,
			number("temp_c"), record["zone"], ts.UnixMicro(), int((driverTTL - time.Since(ts)).Seconds()),
		})
	}
	return rows, nil
}

// groupRows brings rows of a partition together, at most size of them. Groups are in the order in which they are full:
// a writer that sees all of the input would send them so.
func groupRows(rows []driverRow, size int) (groups [][]driverRow) {
	type partition [2]any // device and day
	open := map[partition][]driverRow{}
	var order []partition
	for _, row := range rows {
		p := partition(row[:2])
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
