package csvfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// tenColumns writes a file with every field of a record.
func tenColumns(b *testing.B, n int, layout func(time.Time) string, quote bool) []byte {
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	r := rand.New(rand.NewPCG(1, 2))
	fmt.Fprintln(w, "device_id,fleet_id,timestamp,lat,lon,speed_kmh,heading_deg,battery_pct,temp_c,zone")
	t := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	q := ""
	if quote {
		q = `"`
	}
	for i := range n {
		fmt.Fprintf(w, "%svehicle-%05d%s,fleet-%d,%s,%.7f,%.7f,%.1f,%.1f,%d,%.1f,zone-%d\n", q, r.IntN(5000), q, r.IntN(3),
			layout(t.Add(time.Duration(i)*time.Millisecond)), 31+r.Float64(), 120+r.Float64(),
			r.Float64()*100, r.Float64()*360, r.IntN(101), r.Float64()*30, r.IntN(10))
	}
	w.Flush()
	return out.Bytes()
}

func compress(data []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(data)
	w.Close()
	return out.Bytes()
}

// BenchmarkSource reads files of ten columns on one core.
func BenchmarkSource(b *testing.B) {
	const n = 300_000
	rfc3339 := func(t time.Time) string { return t.Format(time.RFC3339Nano) }
	naive := func(t time.Time) string { return t.Format(time.DateTime) }
	epoch := func(t time.Time) string { return fmt.Sprint(t.UnixMilli()) }
	for _, c := range []struct {
		name string
		data func() []byte
		opts Options
	}{
		{"RFC3339", func() []byte { return tenColumns(b, n, rfc3339, false) }, Options{}},
		{"epoch", func() []byte { return tenColumns(b, n, epoch, false) }, Options{}},
		{"without-zone", func() []byte { return tenColumns(b, n, naive, false) }, Options{}},
		{"without-zone-layout", func() []byte { return tenColumns(b, n, naive, false) }, Options{Times: telemetry.TimeFormat{Layout: time.DateTime}}},
		{"quoted", func() []byte { return tenColumns(b, n, rfc3339, true) }, Options{}},
		{"gzip", func() []byte { return compress(tenColumns(b, n, rfc3339, false)) }, Options{}},
		{"event-order", func() []byte { return tenColumns(b, n, rfc3339, false) }, Options{InEventOrder: func(*telemetry.Record) {}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "f.csv")
			data := c.data()
			if err := os.WriteFile(path, data, 0o644); err != nil {
				b.Fatal(err)
			}
			c.opts.Files = []string{path}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				s, err := New(c.opts)
				if err != nil {
					b.Fatal(err)
				}
				got := 0
				err = s.Run(b.Context(), func(batch pipeline.Batch) error {
					got += len(batch.Items)
					return nil
				})
				if err != nil || got != n {
					b.Fatalf("%d records of %d: %v", got, n, err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
