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
	"time"
)

// interval is the default time between two records of a vehicle.
const interval = 5 * time.Second

// fleets is how many fleets the inputs of a comparison have.
const fleets = 10

// WithoutDerivedRows turns off derived rows, by the setting of older builds and by that of newer ones.
var WithoutDerivedRows = []string{"ETL_DERIVE=false", "ETL_PROCESSOR_ENABLED=false"}

// Realistic writes a file of simulated vehicles and returns its path.
func Realistic(ctx context.Context, binary, dir string, records, vehicles int) (string, error) {
	path := filepath.Join(dir, "realistic.csv")
	return path, Simulation{Records: records, Vehicles: vehicles, Fleets: fleets}.Write(ctx, binary, path)
}

// Inputs are the inputs for a comparison of builds, in files in dir. taxis is the path of wuxi_taxis.csv, or empty.
func Inputs(ctx context.Context, binary, dir string, records, vehicles int, taxis string) ([]Input, error) {
	realistic, err := Realistic(ctx, binary, dir, records, vehicles)
	if err != nil {
		return nil, err
	}
	random := filepath.Join(dir, "random.csv")
	if err := writeRandom(random, records, vehicles); err != nil {
		return nil, err
	}
	inputs := []Input{
		{"realistic, without derived rows", WithoutDerivedRows, []string{realistic}},
		{"realistic, with derived rows", nil, []string{realistic}},
		{"random, without derived rows", WithoutDerivedRows, []string{random}},
		{"random, with derived rows", nil, []string{random}},
	}
	if taxis != "" { // a recording of a day
		inputs = append(inputs, Input{"taxis, with derived rows", nil, []string{
			taxis, "--map", "lon=longitude,lat=latitude,device_id=taxi", "--set", "fleet_id=wuxi", "--timezone", "Asia/Shanghai", "--end-at", "now",
		}})
	}
	return inputs, nil
}

// Simulation is what fleet-etl generate makes: the records of simulated vehicles in event order.
type Simulation struct {
	Records, Vehicles, Fleets int
	Interval                  time.Duration // between two records of a vehicle; 0: 5 s
	Start                     time.Time     // zero: so that the last record is about now
}

// Args are the arguments of fleet-etl.
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

// writeRandom writes records with a random speed and battery level, in event order. Many people test with such rows.
// About every sixth opens a battery alert and another closes it, so they cost far more derived rows than vehicles do.
func writeRandom(path string, records, vehicles int) (err error) {
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
