package kafka_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
)

// BenchmarkSink sends records, each acknowledged.
func BenchmarkSink(b *testing.B) {
	s := newFixture(b, 6)
	sim, err := generator.New(generator.Options{Seed: 1, Vehicles: 300, Fleets: 2, Interval: 5 * time.Second, Records: b.N, Start: time.Now().Add(-time.Hour)})
	require.NoError(b, err)
	sink := s.sink()
	b.ResetTimer()
	_, err = generator.WriteNDJSON(b.Context(), sink, sim)
	require.NoError(b, err)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkSource consumes records, each durable at once.
func BenchmarkSource(b *testing.B) {
	s := newFixture(b, 6)
	s.fill(b.N)
	o := s.options()
	o.BatchRecords = 1000
	b.ResetTimer()
	r := start(b, o, &store{workers: 2})
	until(b, "all", func() bool { return r.count() == b.N })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.StopTimer()
	r.end()
}
