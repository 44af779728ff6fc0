package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/bench/probe"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
)

// asProgram turns the test binary into fleet-etl, so that tests can run and kill it as a process.
const asProgram = "FLEET_ETL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// site is an empty keyspace on the real cluster and a state directory, for the fleet-etl of one test.
type site struct {
	t      *testing.T
	config cassandra.Config
	dir    string
	env    []string
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: t.TempDir(), config: platform.Keyspace(t)}
	s.config.ReadConsistency = "ALL"
	s.env = []string{
		"CASSANDRA_HOSTS=" + strings.Join(s.config.Hosts, ","), "CASSANDRA_KEYSPACE=" + s.config.Keyspace, "ETL_STATE_DIR=" + s.dir, "ETL_METRICS_ADDRESS=",
		"ETL_CANARY_INTERVAL=0", "ETL_PROCESSOR_ENABLED=false", // the tests of derived rows enable it
	}
	out, status := s.run("schema", "apply")
	require.Zero(t, status, out)
	return s
}

// empty returns a site with the same, truncated keyspace and its own state directory, for a part of a test.
func (s *site) empty(t *testing.T) *site {
	other := &site{t: t, config: s.config, dir: t.TempDir()}
	other.env = append(append([]string{}, s.env...), "ETL_STATE_DIR="+other.dir)
	other.truncate()
	return other
}

func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), asProgram+"=1"), s.env...)
	cmd.Dir = s.dir
	return cmd
}

// run returns the output of the program, stdout and stderr, and its exit status.
func (s *site) run(args ...string) (string, int) {
	out, err := s.command(args...).CombinedOutput()
	return string(out), exitStatus(s.t, err)
}

func exitStatus(t *testing.T, err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

// report is the part of the report of a load that tests check.
type report struct {
	Read       int64            `json:"records_read"`
	Stored     int64            `json:"records_stored"`
	Duplicates int64            `json:"records_duplicate"`
	Rejected   map[string]int64 `json:"records_rejected"`
	NotStored  int64            `json:"records_not_stored"`
	PeakMemory int64            `json:"peak_memory_bytes"`
	Retries    int64            `json:"write_retries"`
	Errors     map[string]int64 `json:"write_errors"`
	Result     string           `json:"result"`
}

// load runs a load and parses its report.
func (s *site) load(args ...string) (report, int) {
	cmd := s.command(append([]string{"load", "--report", "json"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	status := exitStatus(s.t, cmd.Run())
	var r report
	require.NoError(s.t, json.Unmarshal(stdout.Bytes(), &r), "%s%s", stdout.String(), stderr.String())
	return r, status
}

func (s *site) truncate() {
	require.NoError(s.t, schema.Truncate(s.t.Context(), s.config, platform.Quiet()))
}

func (s *site) open() *cassandra.Store {
	store, err := cassandra.Open(s.t.Context(), s.config, platform.Quiet(), nil)
	require.NoError(s.t, err)
	s.t.Cleanup(store.Close)
	return store
}

// contents has all stored rows, for comparison.
type contents struct {
	fleets  []string
	devices map[string][]cassandra.Device    // by fleet
	latest  map[string][]cassandra.Telemetry // by fleet
	byID    map[string]cassandra.Telemetry   // latest position by device
	history map[string][]cassandra.Telemetry // newest first, by device
}

func (s *site) contents() contents {
	ctx, store := s.t.Context(), s.open()
	c := contents{
		devices: map[string][]cassandra.Device{}, latest: map[string][]cassandra.Telemetry{},
		byID: map[string]cassandra.Telemetry{}, history: map[string][]cassandra.Telemetry{},
	}
	var err error
	c.fleets, err = store.Fleets(ctx)
	require.NoError(s.t, err)
	for _, fleet := range c.fleets {
		for page := ""; ; {
			p, err := store.Devices(ctx, fleet, 1000, page)
			require.NoError(s.t, err)
			c.devices[fleet] = append(c.devices[fleet], p.Rows...)
			if page = p.Next; page == "" {
				break
			}
		}
		c.latest[fleet], err = store.LatestOfFleet(ctx, fleet)
		require.NoError(s.t, err)
		for _, d := range c.devices[fleet] {
			c.byID[d.DeviceID], err = store.Latest(ctx, d.DeviceID)
			require.NoError(s.t, err)
			c.history[d.DeviceID], err = store.History(ctx, cassandra.HistoryQuery{DeviceID: d.DeviceID, From: time.Now().AddDate(0, 0, -31), To: time.Now().Add(time.Hour)})
			require.NoError(s.t, err)
		}
	}
	return c
}

func (c *contents) rows() (n int) {
	for _, h := range c.history {
		n += len(h)
	}
	return n
}

// wuxi is a real day of taxis, where it is at hand.
func wuxi(t *testing.T) []string {
	end := time.Now().UTC().Truncate(24 * time.Hour).Add(-time.Hour).Format(time.RFC3339) // the same in all runs of the test
	return []string{testenv.Taxis(t), "--map", "lon=longitude,lat=latitude,device_id=taxi", "--set", "fleet_id=wuxi", "--timezone", "Asia/Shanghai", "--end-at", end}
}

func checkWuxi(t *testing.T, c contents) {
	require.Equal(t, []string{"wuxi"}, c.fleets)
	require.Len(t, c.devices["wuxi"], 475)
	require.Len(t, c.latest["wuxi"], 475)
	require.Equal(t, 20188, c.rows())
	for _, newest := range c.latest["wuxi"] {
		require.Equal(t, c.history[newest.DeviceID][0], newest, "the latest row is the newest record")
		require.Equal(t, c.byID[newest.DeviceID], newest)
		require.Nil(t, newest.SpeedKmh)
		require.Nil(t, newest.BatteryPct)
		require.Nil(t, newest.TempC)
		require.Equal(t, "unknown", newest.Zone)
	}
}

func TestRepeatedLoadsStoreADayOnce(t *testing.T) {
	s, args := newSite(t), wuxi(t)
	var first contents
	for run := range 3 {
		r, status := s.load(args...)
		require.Zero(t, status, r.Result)
		require.Equal(t, report{
			Read: 20188, Stored: 20188, Rejected: map[string]int64{}, Errors: map[string]int64{}, Result: "all records are stored", PeakMemory: r.PeakMemory,
		}, r)
		c := s.contents()
		checkWuxi(t, c)
		if run == 0 {
			first = c
		}
		require.Equal(t, first, c)
	}

	t.Run("killed in the middle and given again", func(t *testing.T) {
		s := &site{t: t, config: s.config, dir: t.TempDir(), env: s.env}
		s.env = append(s.env, "ETL_STATE_DIR="+s.dir)
		s.truncate()
		slow := s.command(append([]string{"load"}, args...)...)
		slow.Env = append(slow.Env, "ETL_BATCH_ROWS=1", "ETL_BUFFER_RECORDS=500", "ETL_MAX_IN_FLIGHT=1")
		require.NoError(t, slow.Start())
		require.Eventually(t, func() bool { return checkpointed(s.dir) > 0 }, time.Minute, 20*time.Millisecond)
		require.NoError(t, slow.Process.Kill())
		_ = slow.Wait() // killed
		kept := checkpointed(s.dir)

		other := &site{t: t, config: s.config, dir: s.dir}
		other.config.Keyspace += "_other"
		other.env = append(slices.Clone(s.env), "CASSANDRA_KEYSPACE="+other.config.Keyspace)
		t.Cleanup(func() {
			require.NoError(t, schema.Drop(context.WithoutCancel(t.Context()), other.config, platform.Quiet()))
		})
		out, status := other.run("schema", "apply")
		require.Zero(t, status, out)
		whole, status := other.load(args...)
		require.Zero(t, status, whole.Result)
		require.Equal(t, int64(20188), whole.Read, "another keyspace has nothing of it")

		r, status := s.load(args...)
		require.Zero(t, status, r.Result)
		require.Positive(t, r.Read)
		require.Less(t, r.Read, int64(20188), "it goes on where it was")
		require.Equal(t, int64(20188)-kept+1, r.Read, "and misses nothing")
		require.Equal(t, first, s.contents())
		again, _ := s.load(args...)
		require.Equal(t, int64(20188), again.Read, "a completed load starts from the beginning")
	})

	t.Run("with speed derived in event order", func(t *testing.T) {
		r, status := s.load(append(args, "--derive-speed")...)
		require.Zero(t, status, r.Result)
		with := 0
		c := s.contents()
		require.Equal(t, 20188, c.rows())
		for _, fixes := range c.history {
			require.Nil(t, fixes[len(fixes)-1].SpeedKmh, "the first fix has none before it")
			for _, fix := range fixes {
				if fix.SpeedKmh != nil {
					with++
					require.LessOrEqual(t, *fix.SpeedKmh, 300.0)
				}
			}
		}
		require.Greater(t, with, 19000)
	})
}

// checkpointed is how many lines, header included, the checkpoint in a state directory says are stored.
func checkpointed(dir string) int64 {
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	for _, file := range files {
		var state struct {
			Files []struct{ Line int64 }
		}
		if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &state) == nil && len(state.Files) > 0 {
			return state.Files[0].Line
		}
	}
	return 0
}

func TestInvalidLinesAreReported(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	lines := []struct{ line, reason string }{
		{"v1,f1," + at(0) + ",48.1,11.5,50,90,80,20.5,depot", ""},
		{"v1,f1," + at(0) + ",48.1,11.5,50,90,80,20.5,depot", "duplicate"},
		{"v1,f1," + at(0) + ",48.2,11.5,50,90,80,20.5,depot", "duplicate"}, // another payload of the instant
		{`v2,f1,"` + at(0) + `,48.1,11.5,50,90,80,20.5,depot`, "malformed"},
		{"v2,f1," + at(0) + ",48.1", "malformed"},
		{"v2,f1," + at(0) + ",48.1,11.5,fast,90,80,20.5,depot", "malformed"},
		{"v2,f1," + at(0) + ",48.1,11.5,NaN,90,80,20.5,depot", "malformed"},
		{",f1," + at(0) + ",48.1,11.5,50,90,80,20.5,depot", "missing_field"},
		{"v2,f1," + at(0) + ",,11.5,50,90,80,20.5,depot", "missing_field"},
		{"v2,f1,yesterday,48.1,11.5,50,90,80,20.5,depot", "bad_timestamp"},
		{"v2,f1," + at(time.Hour) + ",48.1,11.5,50,90,80,20.5,depot", "future"},
		{"v2,f1," + at(-31*24*time.Hour) + ",48.1,11.5,50,90,80,20.5,depot", "too_old"},
		{"v2,f1," + at(0) + ",91,11.5,50,90,80,20.5,depot", "lat_range"},
		{"v2,f1," + at(0) + ",48.1,181,50,90,80,20.5,depot", "lon_range"},
		{"v2,f1," + at(0) + ",0,0,50,90,80,20.5,depot", "zero_position"},
		{"v2,f1," + at(0) + ",48.1,11.5,-1,90,80,20.5,depot", "speed_range"},
		{"v2,f1," + at(0) + ",48.1,11.5,50,361,80,20.5,depot", "heading_range"},
		{"v2,f1," + at(0) + ",48.1,11.5,50,90,101,20.5,depot", "battery_range"},
		{"v2,f1," + at(0) + ",48.1,11.5,50,90,80,999,depot", "temp_range"},
		{"v 2,f1," + at(0) + ",48.1,11.5,50,90,80,20.5,depot", "bad_id"},
		{"v2," + strings.Repeat("f", 129) + "," + at(0) + ",48.1,11.5,50,90,80,20.5,depot", "bad_id"},
		{"v2,f1," + at(0) + ",48.1,11.5,50,90,80,20.5," + strings.Repeat("x", 70_000), "too_large"},
		{"v2,f9," + at(0) + ",48.1,11.5,50,90,80,20.5,depot", "unknown_fleet"},
		{"v2,f1," + at(0) + ",48.1,11.5,,,,,", ""},
	}
	text, want, rejected := "device_id,fleet_id,timestamp,lat,lon,speed_kmh,heading_deg,battery_pct,temp_c,zone\n", map[int64]string{}, map[string]int64{}
	for i, l := range lines {
		text += l.line + "\n"
		if l.reason != "" && l.reason != "duplicate" {
			want[int64(i+2)] = l.reason
			rejected[l.reason]++
		}
	}
	path := filepath.Join(s.dir, "broken.csv")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	s.env = append(s.env, "ETL_FLEETS=f1,"+"f2")

	r, status := s.load(path)
	require.Equal(t, 2, status, "valid records are stored, others are rejected")
	require.EqualValues(t, len(lines), r.Read)
	require.EqualValues(t, 2, r.Stored)
	require.EqualValues(t, 2, r.Duplicates)
	require.Zero(t, r.NotStored)
	require.Equal(t, rejected, r.Rejected)
	require.Contains(t, r.Result, "some records were rejected")

	letters, err := os.ReadFile(filepath.Join(s.dir, "deadletters", "deadletters.ndjson"))
	require.NoError(t, err)
	got := map[int64]string{}
	for line := range strings.Lines(string(letters)) {
		var d deadletter.Entry
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		require.Equal(t, "csvfile", d.Source)
		require.Equal(t, path, d.Origin)
		require.NotEmpty(t, d.Remedy)
		got[d.Position] = d.Reason
		if d.Reason != "too_large" {
			require.Equal(t, lines[d.Position-2].line, d.Raw, "the record is kept whole")
		}
	}
	require.Equal(t, want, got)

	c := s.contents()
	require.Len(t, c.history["v1"], 1)
	require.Equal(t, []cassandra.Telemetry{{
		DeviceID: "v2", FleetID: "f1", Ts: now, Lat: 48.1, Lon: 11.5, Zone: "unknown",
	}}, c.history["v2"])

	text, status = s.run("load", path)
	require.Equal(t, 2, status)
	require.Contains(t, text, "rejected                    ")
	require.Contains(t, text, "lat_range")

	t.Run("unreadable files", func(t *testing.T) {
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		good := "device_id,fleet_id,timestamp,lat,lon\n"
		for i := range 5000 {
			good += fmt.Sprintf("z%d,f2,%s,48.1,11.%d\n", i%7, at(-time.Duration(i)*time.Second), rand.IntN(1e6))
		}
		_, err := w.Write([]byte(good))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		files := map[string]string{
			"empty.csv": "", "columns.csv": "device_id,fleet_id,timestamp,lat\nv1,f1,1,2\n", "map.csv": "a,b\n1,2\n",
			"cut.csv.gz": zipped.String()[:zipped.Len()*2/3], "no.csv.gz": "not gzip",
		}
		for name, text := range files {
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
		}
		for _, c := range []struct {
			args []string
			want []string
		}{
			{[]string{"empty.csv"}, []string{"empty.csv", "empty"}},
			{[]string{"columns.csv"}, []string{"columns.csv", "lon", "--map", "--set"}},
			{[]string{"map.csv", "--map", "lat=latitude"}, []string{"map.csv", "latitude"}},
			{[]string{"map.csv", "--map", "latitude=a"}, []string{"latitude", "device_id"}},
			{[]string{"."}, []string{"directory"}},
			{[]string{"absent.csv"}, []string{"absent.csv"}},
			{[]string{"absent*.csv"}, []string{"absent*.csv"}},
			{[]string{"no.csv.gz"}, []string{"no.csv.gz", "gzip"}},
			{[]string{"cut.csv.gz"}, []string{"cut.csv.gz", "line"}},
			{[]string{"map.csv", "--timezone", "Mars/Base"}, []string{"--timezone", "Mars/Base"}},
			{[]string{"columns.csv", "--set", "lon=1", "--end-at", "noon"}, []string{"--end-at", "noon"}},
			{nil, []string{"no file"}},
		} {
			out, status := s.run(append([]string{"load"}, c.args...)...)
			require.Equal(t, 1, status, "%v: %s", c.args, out)
			for _, want := range c.want {
				require.Contains(t, out, want, "%v", c.args)
			}
		}
		store := s.open()
		fixes, err := store.LatestOfFleet(t.Context(), "f2")
		require.NoError(t, err)
		require.Len(t, fixes, 7, "the records before the cut are stored")
	})
}

func TestOrderAndRepetitionDoNotMatter(t *testing.T) {
	s := newSite(t)
	sorted := filepath.Join(s.dir, "sorted.csv")
	out, status := s.run("generate", "--records", "6000", "--vehicles", "40", "--fleets", "3", "--interval", "30s", "-o", sorted)
	require.Zero(t, status, out)
	text, err := os.ReadFile(sorted)
	require.NoError(t, err)
	header, body, _ := strings.Cut(string(text), "\n")
	lines := strings.SplitAfter(body, "\n")
	lines = lines[:len(lines)-1]
	// Some vehicles change their fleet, there and back, and some rivals share an instant.
	for i := range lines {
		if i%9 == 0 {
			lines[i] = strings.Replace(lines[i], ",fleet-002,", ",fleet-001,", 1)
		}
	}
	for i := 0; i < 200; i++ {
		f := strings.Split(lines[i*17], ",")
		f[5] = "12.5" // another speed
		lines = append(lines, strings.Join(f, ","))
	}
	write := func(name string, lines []string) string {
		path := filepath.Join(s.dir, name)
		require.NoError(t, os.WriteFile(path, []byte(header+"\n"+strings.Join(lines, "")), 0o600))
		return path
	}
	r, status := s.load(write("a.csv", lines))
	require.Zero(t, status, r.Result)
	require.EqualValues(t, 6000, r.Stored)
	require.EqualValues(t, 200, r.Duplicates)
	want := s.contents()
	require.Equal(t, []string{"fleet-001", "fleet-002", "fleet-003"}, want.fleets)
	require.Equal(t, 6000, want.rows())
	for try, settings := range [][]string{
		{"ETL_BUFFER_RECORDS=512"}, {"ETL_BUFFER_RECORDS=64", "ETL_DEVICES_IN_MEMORY=10"}, {"ETL_BATCH_ROWS=1", "ETL_DEDUPE_RECORDS=2"},
	} {
		s.truncate()
		shuffled := append(append([]string{}, lines...), lines[:1500]...)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := &site{t: t, config: s.config, dir: s.dir, env: append(append([]string{}, s.env...), settings...)}
		r, status := other.load(write(fmt.Sprintf("shuffled%d.csv", try), shuffled))
		require.Zero(t, status, r.Result)
		require.Equal(t, want, s.contents(), "%v", settings)
	}
}

// nodes controls the cluster that make test runs the tests on.
func nodes(t *testing.T) *cluster.Cluster {
	c, _ := platform.Cluster(t)
	t.Cleanup(func() { require.NoError(t, c.Up(context.WithoutCancel(t.Context()))) })
	return c
}

// stored is how many records a program has stored, by its metrics.
func stored(metrics string) (n float64) {
	for line := range strings.Lines(metrics) {
		_, _ = fmt.Sscanf(line, `fleet_etl_freshness_seconds_count %f`, &n)
	}
	return n
}

func TestKilledNodesLoseNothing(t *testing.T) {
	s, c := newSite(t), nodes(t)
	const records = 150_000
	file := filepath.Join(s.dir, "many.csv")
	out, status := s.run("generate", "--records", fmt.Sprint(records), "--vehicles", "300", "-o", file)
	require.Zero(t, status, out)

	// started begins a load, and returns when a part of it is stored.
	started := func() (wait func() report, store func() string) {
		const address = "127.0.0.1:19464"
		cmd := s.command("load", "--report", "json", file)
		cmd.Env = append(cmd.Env, "ETL_METRICS_ADDRESS="+address, "ETL_BUFFER_RECORDS=8192")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		require.NoError(t, cmd.Start())
		metrics := func() string {
			response, err := http.Get("http://" + address + "/metrics")
			if err != nil {
				return ""
			}
			defer func() { _ = response.Body.Close() }()
			text, _ := io.ReadAll(response.Body)
			return string(text)
		}
		require.Eventually(t, func() bool { return stored(metrics()) > records/10 }, time.Minute, 20*time.Millisecond)
		return func() report {
			status := exitStatus(t, cmd.Wait())
			require.Zero(t, status, "%s", stderr.String())
			var r report
			require.NoError(t, json.Unmarshal(stdout.Bytes(), &r))
			require.EqualValues(t, records, r.Stored)
			require.Zero(t, r.NotStored)
			require.Less(t, r.PeakMemory, int64(256<<20))
			return r
		}, metrics
	}
	whole := func() {
		contents := s.contents()
		require.Equal(t, records, contents.rows())
		require.Len(t, contents.latest["fleet-001"], 300)
		for _, newest := range contents.latest["fleet-001"] {
			require.Equal(t, contents.history[newest.DeviceID][0].Ts, newest.Ts)
		}
	}

	t.Run("one node of four, then the whole local data center", func(t *testing.T) {
		wait, metrics := started()
		require.NoError(t, c.Kill(t.Context(), 2))
		before := stored(metrics())
		require.Eventually(t, func() bool { return stored(metrics()) > before+records/10 }, time.Minute, 20*time.Millisecond, "it goes on")
		require.NoError(t, c.Kill(t.Context(), 1))
		wait() // through dc2
		require.NoError(t, c.Up(t.Context()))
		whole()
	})
	t.Run("all nodes, until they return", func(t *testing.T) {
		s.truncate()
		wait, metrics := started()
		for n := 1; n <= 4; n++ {
			require.NoError(t, c.Kill(t.Context(), n))
		}
		require.Eventually(t, func() bool { return strings.Contains(metrics(), "fleet_etl_store_up 0") }, time.Minute, 100*time.Millisecond,
			"the metric shows that Cassandra is down")
		require.NoError(t, c.Up(t.Context()))
		wait()
		whole()
	})
}

func TestRunDrainsOnSIGTERM(t *testing.T) {
	s := newSite(t)
	const address = "127.0.0.1:19465"
	cmd := s.command("run")
	cmd.Env = append(cmd.Env, "ETL_METRICS_ADDRESS="+address, "ETL_GENERATOR_VEHICLES=500", "ETL_GENERATOR_INTERVAL=500ms",
		"ETL_GENERATOR_LATE=0.05", "ETL_GENERATOR_DUPLICATE=0.05", "ETL_GENERATOR_BROKEN=0.05")
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	get := func(path string) (int, string) {
		response, err := http.Get("http://" + address + path)
		if err != nil {
			return 0, ""
		}
		defer func() { _ = response.Body.Close() }()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	require.Eventually(t, func() bool { status, _ := get("/-/ready"); return status == http.StatusOK }, time.Minute, 50*time.Millisecond)
	status, _ := get("/-/healthy")
	require.Equal(t, http.StatusOK, status)
	status, _ = get("/debug/pprof/")
	require.Equal(t, http.StatusNotFound, status, "off by default")
	time.Sleep(3 * time.Second) // of traffic
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), log.String())

	var last struct {
		Message                                string `json:"msg"`
		Received, Stored, Duplicates, Rejected int
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "all received records are stored") {
			require.NoError(t, json.Unmarshal([]byte(line), &last))
		}
	}
	require.Positive(t, last.Stored, log.String())
	require.Positive(t, last.Duplicates)
	require.Positive(t, last.Rejected)
	require.Equal(t, last.Received, last.Stored+last.Duplicates+last.Rejected, "each record is counted once")
	contents := s.contents()
	require.Equal(t, last.Stored, contents.rows(), "and in the table")

	t.Run("a load test counts stored records", func(t *testing.T) { loadIsMeasured(t, s.empty(t)) })
}

// loadIsMeasured measures a replay from outside, as the load test does.
func loadIsMeasured(t *testing.T, s *site) {
	const rate, seconds = 200, 4 // the first of them is the warm-up, and the last is not measured
	file := filepath.Join(s.dir, "schedule.csv")
	out, status := s.run("generate", "--records", fmt.Sprint(rate*seconds), "--vehicles", "20", "--interval", "100ms", "-o", file)
	require.Zero(t, status, out)
	addresses, err := process.FreeAddresses(1)
	require.NoError(t, err)
	address := addresses[0]
	cmd := s.command("replay", "--start-at", "now", "--report", "json", file)
	cmd.Env, cmd.Stderr = append(cmd.Env, "ETL_METRICS_ADDRESS="+address, "ETL_LOAD_LINGER=200ms"), os.Stderr
	var report strings.Builder
	cmd.Stdout = &report
	require.NoError(t, cmd.Start())
	watch := probe.Probe{Address: address, Every: time.Second}
	require.NoError(t, watch.Started(t.Context()))
	time.Sleep(time.Second)
	m, err := watch.Measure(t.Context(), 2*time.Second)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait(), report.String())
	stored := s.contents()
	require.Equal(t, rate*seconds, stored.rows())
	require.InDelta(t, rate, m.PerSecond, rate/2)
	require.Equal(t, m.Records, m.Latency.Count)
	require.Len(t, m.Samples, 2)
	history := m.Writes[cassandra.TableHistory]
	require.Positive(t, history.Count)
	require.Positive(t, history.P50)
	require.LessOrEqual(t, history.P50, history.P99)
}
