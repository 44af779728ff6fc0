package bench

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// WithoutDerivedRows turns off derived rows.
var WithoutDerivedRows = []string{"ETL_PROCESSOR_ENABLED=false"}

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
