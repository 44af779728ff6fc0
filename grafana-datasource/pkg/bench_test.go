package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/plugintest"
)

// TestMeasure prints the latency of queries through the real binary, gRPC and frames included, next to the naive way of
// one query per vehicle in sequence. It asserts no latency. Run it with make bench-plugin.
func TestMeasure(t *testing.T) {
	testenv.Benchmark(t, "make bench-plugin")
	w := open(t)
	store, err := cassandra.Open(t.Context(), w.config, platform.Quiet(), nil)
	require.NoError(t, err)
	defer store.Close()
	var rows []cassandra.Telemetry
	for range 2 { // the first read warms up the nodes
		rows, err = store.LatestOfFleet(t.Context(), "middle")
		require.NoError(t, err)
	}
	require.Len(t, rows, 500)
	naive := func() {
		for i := range rows {
			if _, err := store.Latest(t.Context(), rows[i].DeviceID); cassandra.ReasonOf(err) != cassandra.ReasonNotFound && err != nil {
				t.Fatal(err)
			}
		}
	}
	naiveTook := median(t, 5, naive)
	fmt.Printf("%-58s %10s %10s %10s\n", "", "median", "goal", "of naive")
	line := func(name string, took, goal time.Duration) {
		ratio := ""
		if goal != 0 && took < naiveTook {
			ratio = fmt.Sprintf("%.4f", float64(took)/float64(naiveTook))
		}
		fmt.Printf("%-58s %10s %10s %10s\n", name, took.Round(10*time.Microsecond), map[bool]string{true: goal.String(), false: ""}[goal > 0], ratio)
	}
	line("500 vehicles, one query each, in sequence", naiveTook, 0)
	latest := func(s plugintest.Source, fleet string, n int) func() {
		return func() {
			f := w.run(t, s, w.now, w.now, map[string]any{"queryType": "latest", "fleets": []string{fleet}})
			require.Equal(t, n, f[0].Rows())
		}
	}
	uncached, cached := w.source("uncached"), w.source("cached", map[string]any{"latestCache": "1h", "closedDayCache": "1h"})
	line("latest, 500 vehicles, uncached", median(t, 30, latest(uncached, "middle", 500)), 50*time.Millisecond)
	line("latest, 10,000 vehicles, uncached", median(t, 15, latest(uncached, "large", 10_000)), 250*time.Millisecond)
	line("latest, 500 vehicles, cached", median(t, 30, latest(cached, "middle", 500)), 5*time.Millisecond)
	line("latest, 10,000 vehicles, cached", median(t, 30, latest(cached, "large", 10_000)), 5*time.Millisecond)

	// One position every 10 s for 30 days, and for the day before.
	first := w.midnight.AddDate(0, 0, -29)
	points := 0
	for day := -1; day < 30; day++ {
		from := first.AddDate(0, 0, day)
		var positions []cassandra.TelemetryRow
		for i := range 8640 {
			ts := from.Add(time.Duration(i) * 10 * time.Second)
			positions = append(positions, cassandra.TelemetryRow{
				TsMs: ts.UnixMilli(), FleetID: "north", Lat: 52 + float64(i)/1e5, Lon: 9 + float64(i)/1e5, SpeedKmh: ptr(40 + 30*math.Sin(float64(i)/300)),
				HeadingDeg: ptr(float64(i % 360)), BatteryPct: ptr(int32(100 - i/100)), TempC: ptr(4.0), Zone: "centre",
			})
		}
		require.NoError(t, w.writeDay(t.Context(), store, "long", from, positions))
		if day >= 0 {
			points += len(positions)
		}
	}
	to := first.AddDate(0, 0, 30).Add(-time.Millisecond)
	track := func(p *plugintest.Plugin, s plugintest.Source, from, to time.Time) data.Frames {
		responses, err := p.Query(context.Background(), s, from, to, nil, map[string]any{"queryType": "track", "devices": []string{"long"}, "maxDataPoints": 1000})
		require.NoError(t, err)
		require.NoError(t, responses["A"].Error)
		return responses["A"].Frames
	}
	var cold, pan []time.Duration
	peak := 0
	for i := range 3 {
		p, err := plugintest.Start(w.binary, nil)
		require.NoError(t, err)
		s := w.source(fmt.Sprintf("track-%d", i))
		_, err = p.Query(context.Background(), s, w.now, w.now, nil, map[string]any{"queryType": "latest", "fleets": []string{"south"}}) // connect first
		require.NoError(t, err)
		start := time.Now()
		frames := track(p, s, first, to)
		cold = append(cold, time.Since(start))
		require.LessOrEqual(t, frames[0].Rows(), 1000)
		if i == 0 {
			fmt.Printf("  %d points read, %v rows, shown %d\n", points, custom(t, frames[0])["rows"], frames[0].Rows())
		}
		start = time.Now()
		frames = track(p, s, first.AddDate(0, 0, -1), to.AddDate(0, 0, -1))
		pan = append(pan, time.Since(start))
		require.Equal(t, 1.0, custom(t, frames[0])["partitions"], "29 days are cached")
		peak = max(peak, peakMemory(t, p.Pid()))
		p.Close()
	}
	slices.Sort(cold)
	slices.Sort(pan)
	line(fmt.Sprintf("track, 30 days, %d positions to 1,000 points, cold", points), cold[1], 2*time.Second)
	line("the same, a day earlier", pan[1], 200*time.Millisecond)
	fmt.Printf("%-58s %7d MB %10s\n", "peak memory of the plugin", peak>>20, "200 MB")
}

func median(t *testing.T, n int, do func()) time.Duration {
	t.Helper()
	do()
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		do()
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[n/2]
}

// peakMemory returns the peak resident memory of a process in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			require.NoError(t, err)
			return kb << 10
		}
	}
	t.Fatal("/proc has no VmHWM")
	return 0
}
