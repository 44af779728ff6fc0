package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// WithoutDerivedRows turns off derived rows.
const WithoutDerivedRows = "ETL_PROCESSOR_ENABLED=false"

// fleetSize is the number of vehicles of one fleet.
const fleetSize = 100

// Simulation is what fleet-etl generate makes: the records of simulated vehicles in event order.
type Simulation struct {
	Records, Vehicles int
	Interval          time.Duration // between two records of a vehicle
	Start             time.Time     // zero: so that the last record is about now
}

// Write lets fleet-etl write the records to a CSV file.
func (s Simulation) Write(ctx context.Context, binary, path string) error {
	args := []string{
		"generate", "--records", fmt.Sprint(s.Records), "--vehicles", fmt.Sprint(s.Vehicles),
		"--fleets", fmt.Sprint((s.Vehicles + fleetSize - 1) / fleetSize), "--interval", s.Interval.String(), "--out", path,
	}
	if !s.Start.IsZero() {
		args = append(args, "--start", s.Start.UTC().Format(time.RFC3339Nano))
	}
	if out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("generate %s: %w\n%s", path, err, out)
	}
	return nil
}

// Random is records with a random speed and battery level, in event order. Many people test with such rows. About every
// sixth opens a battery alert and another closes it, so they cost far more derived rows than vehicles do.
type Random struct{ Records, Vehicles int }

// Write writes the records, of five seconds per vehicle, to a CSV file.
func (r Random) Write(_ context.Context, _, path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriter(file)
	random := rand.New(rand.NewPCG(1, 1))
	step := 5 * time.Second / time.Duration(r.Vehicles)
	start := time.Now().Add(-time.Duration(r.Records) * step)
	fmt.Fprintln(w, "device_id,fleet_id,timestamp,lat,lon,speed_kmh,battery_pct,temp_c")
	for i := range r.Records {
		vehicle := i % r.Vehicles
		fmt.Fprintf(w, "random-%05d,random-%03d,%s,%.5f,%.5f,%.1f,%d,%.1f\n", vehicle+1, vehicle%10+1,
			start.Add(time.Duration(i)*step).UTC().Format("2006-01-02T15:04:05.000Z"),
			52.3+random.Float64()/10, 9.7+random.Float64()/10, 120*random.Float64(), random.IntN(101), 40*random.Float64()-10)
	}
	return w.Flush()
}
