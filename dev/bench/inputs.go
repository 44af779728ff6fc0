package bench

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// interval is the default time between two records of a vehicle.
const interval = 5 * time.Second

// Simulation is what fleet-etl generate makes: the records of simulated vehicles in event order.
type Simulation struct {
	Records, Vehicles, Fleets int
	Interval                  time.Duration // between two records of a vehicle; 0: 5 s
	Start                     time.Time     // zero: so that the last record is about now
}

// Args are the flags of fleet-etl generate.
func (s Simulation) Args() []string {
	args := []string{
		"generate", "--records", fmt.Sprint(s.Records), "--vehicles", fmt.Sprint(s.Vehicles), "--fleets", fmt.Sprint(s.Fleets),
		"--interval", cmp.Or(s.Interval, interval).String(),
	}
	if !s.Start.IsZero() {
		args = append(args, "--start", s.Start.UTC().Format(time.RFC3339Nano))
	}
	return args
}

// Write lets fleet-etl write the records to a CSV file.
func (s Simulation) Write(ctx context.Context, binary, path string) error {
	if out, err := exec.CommandContext(ctx, binary, append(s.Args(), "--out", path)...).CombinedOutput(); err != nil {
		return fmt.Errorf("generate %s: %w\n%s", path, err, out)
	}
	return nil
}

// sortByDevice copies a CSV file with its records ordered by device.
func sortByDevice(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	header, body, _ := strings.Cut(string(text), "\n")
	lines := strings.SplitAfter(body, "\n")
	device := func(line string) string { id, _, _ := strings.Cut(line, ","); return id }
	slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(device(a), device(b)) })
	return os.WriteFile(to, []byte(header+"\n"+strings.Join(lines, "")), 0o600) //nolint:gosec // the path is in a temporary directory of the comparison
}

// writeRandom writes records with a random speed and battery level, in event order. Many people test with such rows.
// About every sixth opens a battery alert and another closes it, so they cost far more derived rows than vehicles do.
func writeRandom(path string, records, vehicles, fleets int) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriter(file)
	random := rand.New(rand.NewPCG(1, 1))
	step := interval / time.Duration(vehicles)
	start := time.Now().Add(-time.Duration(records) * step)
	fmt.Fprintln(w, "device_id,fleet_id,timestamp,lat,lon,speed_kmh,battery_pct,temp_c")
	for i := range records {
		vehicle := i % vehicles
		fmt.Fprintf(w, "random-%05d,random-%03d,%s,%.5f,%.5f,%.1f,%d,%.1f\n", vehicle+1, vehicle%fleets+1,
			start.Add(time.Duration(i)*step).UTC().Format("2006-01-02T15:04:05.000Z"),
			52.3+random.Float64()/10, 9.7+random.Float64()/10, 120*random.Float64(), random.IntN(101), 40*random.Float64()-10)
	}
	return w.Flush()
}

// taxis are the flags that load wuxi_taxis.csv, a recording of a day.
func taxis(file string) []string {
	return []string{file, "--map", "lon=longitude,lat=latitude,device_id=taxi", "--set", "fleet_id=wuxi", "--timezone", "Asia/Shanghai", "--end-at", "now"}
}

// within is a path in the directory of the inputs.
func within(dir, name string) string { return filepath.Join(dir, name+".csv") }
