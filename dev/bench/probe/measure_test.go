package probe

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMeasureTakesWhatHappensMeanwhile(t *testing.T) {
	reg := prometheus.NewRegistry()
	histogram := func(name, label string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, NativeHistogramBucketFactor: 1.1}, []string{label})
		reg.MustRegister(h)
		return h
	}
	freshness := prometheus.NewHistogram(prometheus.HistogramOpts{Name: metricFreshness, NativeHistogramBucketFactor: 1.1})
	write, stage := histogram(metricWrite, "table"), histogram("fleet_etl_stage_duration_seconds", "stage")
	received := prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricReceived}, []string{"source"})
	length := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: metricQueue}, []string{"queue"})
	capacity := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: metricQueueLimit}, []string{"queue"})
	reg.MustRegister(freshness, received, length, capacity, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	length.WithLabelValues("load").Set(2)
	capacity.WithLabelValues("load").Set(8)
	record := func(took float64) {
		received.WithLabelValues("replay").Inc()
		freshness.Observe(took)
		write.WithLabelValues("telemetry").Observe(took / 10)
		stage.WithLabelValues("load").Observe(took)
	}
	record(100) // before the measurement
	server := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	defer server.Close()

	p := Probe{Address: strings.TrimPrefix(server.URL, "http://"), Every: time.Second}
	require.NoError(t, p.Started(t.Context()))
	time.AfterFunc(500*time.Millisecond, func() { record(1) })
	m, err := p.Measure(t.Context(), 1200*time.Millisecond)
	require.NoError(t, err)
	assert.Equal(t, 1.0, m.Records)
	assert.InEpsilon(t, 1, m.Latency.P99, .1)
	assert.InEpsilon(t, .1, m.Writes["telemetry"].P99, .1)
	assert.Equal(t, []Duration{{"stage load", 1, 1}}, m.Durations)
	assert.Equal(t, map[string]float64{"load": .25}, m.Queues)
	assert.InDelta(t, 1.2, m.Seconds, .5)
	assert.Len(t, m.Samples, 2)
	assert.Positive(t, m.Samples[0].Resident)
	assert.Positive(t, m.Samples[0].Heap)
}
