package generator

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

var update = flag.Bool("update", false, "rewrite data/sample_telemetry.csv")

// sample is how data/sample_telemetry.csv is made: a fleet of 50 from six o'clock on a Monday, a record a minute.
// After a change of the simulation: go test ./etl/internal/source/generator -run Sample -update
var sample = Options{
	Seed:     62,
	Vehicles: 50,
	Interval: time.Minute,
	Start:    monday,
	Records:  10_000,
}

func TestSampleFileIsUpToDate(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		testenv.Missing(t, testenv.Machine, "the sample was made on amd64: processors with fused multiply-add round differently")
	}
	path := filepath.Join("..", "..", "..", "..", "data", "sample_telemetry.csv")
	var want bytes.Buffer
	counts, err := WriteCSV(t.Context(), &want, simulator(t, sample))
	if err != nil {
		t.Fatal(err)
	}
	if counts.Good != counts.Lines() || counts.Good != 10_000 || want.Len() > 1_500_000 {
		t.Errorf("sample has %d bytes and %+v, want 10,000 good records in 1.5 MB", want.Len(), counts)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what the generator makes: run the test with -update and look at the difference", path)
	}
}
