package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/kafka"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// TestMeasureSources prints how many records per second come in by each way, and how soon a record can be read at a
// steady 2,000 a second. It decides nothing: make bench runs it.
func TestMeasureSources(t *testing.T) {
	testenv.Benchmark(t, "make bench")
	s := newSite(t)
	const records = 200_000
	x := &stream{csv: s.dir + "/stream.csv", ndjson: s.dir + "/stream.ndjson", generate: []string{
		"generate", "--records", fmt.Sprint(records), "--vehicles", "1000", "--start", time.Now().Add(-20 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339),
	}}
	for path, format := range map[string]string{x.csv: "csv", x.ndjson: "ndjson"} {
		out, status := s.run(append(slices.Clone(x.generate), "--format", format, "-o", path)...)
		require.Zero(t, status, out)
	}
	warm, status := s.load(x.csv) // the nodes are cold
	require.Zero(t, status, warm.Result)

	fmt.Printf("%-62s %12s %8s\n", "", "records/s", "of CSV")
	var csv float64
	line := func(name string, n int, took time.Duration) {
		rate := float64(n) / took.Seconds()
		if csv == 0 {
			csv = rate
		}
		fmt.Printf("%-62s %12.0f %8.2f\n", name, rate, rate/csv)
	}
	s.truncate()
	began := time.Now()
	r, status := s.load(x.csv)
	require.Zero(t, status, r.Result)
	line("CSV, load", records, time.Since(began))

	s.truncate()
	const address = "127.0.0.1:18080"
	v := s.service("ETL_SOURCES=api", "ETL_API_ADDRESS="+address, "ETL_API_OPEN_FLEET=nobody", "ETL_API_DEVICE_RATE=0", "ETL_API_TOKEN_RATE=0")
	v.start()
	require.Eventually(t, func() bool { return v.metric("fleet_etl_store_up") == 1 && up(address) }, 30*time.Second, 20*time.Millisecond)
	chunks := x.chunks(t, 500)
	began = time.Now()
	var next atomic.Int64
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(chunks); i = int(next.Add(1)) - 1 {
				if status := post(address, chunks[i]); status != http.StatusOK {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	senders.Wait()
	line("HTTP, 8 senders, 500 records a request: acknowledged", records, time.Since(began))
	require.Eventually(t, func() bool { return v.metric("fleet_etl_spool_entries") == 0 }, 5*time.Minute, 20*time.Millisecond)
	line("HTTP: all of them stored", records, time.Since(began))
	v.stop()

	if os.Getenv("KAFKA_TEST_BROKERS") != "" {
		s.truncate()
		broker, err := kafka.Open(io.Discard)
		require.NoError(t, err)
		topic := fmt.Sprintf("bench-%08x", rand.Uint32())
		require.NoError(t, broker.CreateTopic(t.Context(), topic, 6))
		require.NoError(t, broker.CreateTopic(t.Context(), topic+"-dead-letters", 1))
		env := []string{"KAFKA_BROKERS=" + broker.Address(), "KAFKA_TOPICS=" + topic, "KAFKA_DEAD_LETTER_TOPIC=" + topic + "-dead-letters", "KAFKA_GROUP=" + topic}
		generate := s.command(append(slices.Clone(x.generate), "--to", "kafka")...)
		generate.Env = append(generate.Env, env...)
		out, err := generate.CombinedOutput()
		require.NoError(t, err, string(out))
		v = s.service(append([]string{"ETL_SOURCES=kafka"}, env...)...)
		v.start()
		require.Eventually(t, func() bool { return v.metric("fleet_etl_kafka_partitions") == 6 }, 30*time.Second, 5*time.Millisecond)
		began = time.Now()
		require.Eventually(t, func() bool { return v.metric("fleet_etl_freshness_seconds_count") >= records }, 5*time.Minute, 20*time.Millisecond)
		line("Kafka, 6 partitions, one process: stored", records, time.Since(began))
		v.stop()
	}

	s.truncate()
	v = s.service("ETL_SOURCES=api", "ETL_API_ADDRESS="+address, "ETL_API_OPEN_FLEET=nobody", "ETL_API_DEVICE_RATE=0")
	v.start()
	require.Eventually(t, func() bool { return v.metric("fleet_etl_store_up") == 1 && up(address) }, 30*time.Second, 20*time.Millisecond)
	small := x.chunks(t, 50)
	const seconds, perSecond = 30, 40 // requests of 50 records
	answered := make([]time.Duration, 0, seconds*perSecond)
	var mu sync.Mutex
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	for i := range seconds * perSecond {
		<-tick.C
		senders.Go(func() {
			sent := time.Now()
			if status := post(address, small[i]); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
			mu.Lock()
			defer mu.Unlock()
			answered = append(answered, time.Since(sent))
		})
	}
	senders.Wait()
	require.Eventually(t, func() bool { return v.metric("fleet_etl_spool_entries") == 0 }, time.Minute, 20*time.Millisecond)
	slices.Sort(answered)
	at := func(q float64) time.Duration {
		return answered[int(q*float64(len(answered)-1))].Round(100 * time.Microsecond)
	}
	fmt.Printf("\nat a steady %d records/s over HTTP for %d s%32s %10s %10s\n", perSecond*50, seconds, "P50", "P95", "P99")
	fmt.Printf("%-60s %10s %10s %10s\n", "request to answer (fsynced)", at(.5), at(.95), at(.99))
	q := v.quantiles("fleet_etl_freshness_seconds", .5, .95, .99)
	fmt.Printf("%-60s %10s %10s %10s\n", "accepted to readable, from the histogram's buckets (goal 500 ms)", q[0], q[1], q[2])
	v.stop()
}

// quantiles reads quantiles off a histogram's classic buckets, as histogram_quantile does.
func (v *service) quantiles(name string, quantiles ...float64) []time.Duration {
	response, err := http.Get("http://" + v.metrics + "/metrics")
	require.NoError(v.s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(v.s.t, err)
	type bucket struct{ le, count float64 }
	var buckets []bucket
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name+`_bucket{le="`)
		if !ok {
			continue
		}
		le, count, _ := strings.Cut(rest, `"} `)
		var b bucket
		if json.Unmarshal([]byte(le), &b.le) != nil {
			continue // +Inf
		}
		_, err := fmt.Sscan(count, &b.count)
		require.NoError(v.s.t, err)
		buckets = append(buckets, b)
	}
	require.NotEmpty(v.s.t, buckets)
	total := v.metric(name + "_count")
	var found []time.Duration
	for _, q := range quantiles {
		before := bucket{}
		at := time.Duration(-1)
		for _, b := range buckets {
			if b.count >= q*total {
				at = time.Duration((before.le + (b.le-before.le)*(q*total-before.count)/max(b.count-before.count, 1)) * float64(time.Second))
				break
			}
			before = b
		}
		found = append(found, at.Round(time.Millisecond))
	}
	return found
}
