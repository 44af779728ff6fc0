package app

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/deadletter"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// fleetETL runs the program with its state in a directory and returns its output.
func fleetETL(t *testing.T, dir string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	t.Setenv("ETL_STATE_DIR", dir)
	t.Setenv("ETL_METRICS_ADDRESS", "")
	t.Setenv("ETL_FLEETS", "wuxi")
	var out, err bytes.Buffer
	status = Run(t.Context(), args, Streams{In: strings.NewReader(""), Out: &out, Err: &err})
	return out.String(), err.String(), status
}

// twoPerFile rotates the dead letters of these tests after each second one.
var twoPerFile = deadletter.Limits{Bytes: 8000}

// writeDeadLetters writes four dead letters, an hour apart, the first at 12:00.
func writeDeadLetters(t *testing.T, dir string) {
	t.Helper()
	at := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	d := deadletter.NewFile(filepath.Join(dir, "deadletters"), twoPerFile, logrus.New(), nil, func() time.Time { return at })
	now := time.Now().UTC().Format(time.RFC3339)
	fields := map[string]string{"device_id": "bus-1", "fleet_id": "berlin", "timestamp": now, "lat": "31.5", "lon": "120.5"}
	for i, r := range []pipeline.Rejected{
		{Rejection: telemetry.Reject(telemetry.UnknownFleet, "fleet_id", "berlin", "add it to ETL_FLEETS"), Raw: "bus-1;berlin", Fields: fields},
		{Rejection: telemetry.Reject(telemetry.Malformed, "", "", "the line has 1 fields"), Raw: "bus-1"},
		{Rejection: telemetry.Reject(telemetry.LatRange, "lat", "91", "give degrees"), Raw: `{"device_id":"bus-2","fleet_id":"wuxi","timestamp":"` + now + `","lat":91,"lon":1}`},
		{Rejection: telemetry.Reject(telemetry.UnknownFleet, "fleet_id", "berlin", "add it to ETL_FLEETS"), Raw: "the same again", Fields: fields},
	} {
		r.Position = int64(i + 2)
		at = at.Add(time.Hour)
		require.NoError(t, d.Append(t.Context(), []string{"csvfile", "csvfile", "kafka", "csvfile"}[i], "day.csv", []pipeline.Rejected{r}))
	}
	require.NoError(t, d.Close())
}

func TestListingDeadLetters(t *testing.T) {
	dir := t.TempDir()
	writeDeadLetters(t, dir)
	for name, c := range map[string]struct {
		args []string
		want []int64 // numbers
	}{
		"all there are":   {nil, []int64{1, 2, 3, 4}},
		"of a reason":     {[]string{"--reason", "unknown_fleet"}, []int64{1, 4}},
		"of two reasons":  {[]string{"--reason", "malformed,lat_range"}, []int64{2, 3}},
		"the same twice":  {[]string{"--reason", "malformed", "--reason", "lat_range"}, []int64{2, 3}},
		"of a source":     {[]string{"--source", "kafka"}, []int64{3}},
		"of no source":    {[]string{"--source", "replay"}, nil},
		"since":           {[]string{"--since", "2026-03-01T13:00:00Z"}, []int64{2, 3, 4}},
		"until":           {[]string{"--until", "2026-03-01 13:00:00"}, []int64{1}},
		"between":         {[]string{"--since", "2026-03-01T13:00:00Z", "--until", "2026-03-01T15:00:00Z"}, []int64{2, 3}},
		"the latest hour": {[]string{"--since", "1h"}, nil},
		"before that":     {[]string{"--until", "1h"}, []int64{1, 2, 3, 4}},
		"limited":         {[]string{"--limit", "2"}, []int64{1, 2}},
		"limited of some": {[]string{"--limit", "1", "--source", "kafka"}, []int64{3}},
	} {
		t.Run(name, func(t *testing.T) {
			out, stderr, status := fleetETL(t, dir, append([]string{"deadletters", "list", "--format", "json"}, c.args...)...)
			require.Zero(t, status, stderr)
			var got []int64
			for line := range strings.Lines(out) {
				var l struct {
					Number      int64
					ID          string
					Reprocessed bool
					Reason      string
					Raw         string
				}
				require.NoError(t, json.Unmarshal([]byte(line), &l))
				require.Len(t, l.ID, 32)
				require.False(t, l.Reprocessed)
				require.NotEmpty(t, l.Reason)
				require.NotEmpty(t, l.Raw)
				got = append(got, l.Number)
			}
			require.Equal(t, c.want, got)
		})
	}

	out, _, status := fleetETL(t, dir, "deadletters", "list")
	require.Zero(t, status)
	require.Contains(t, out, `     1  2026-03-01T12:00:00Z  csvfile day.csv:2  unknown_fleet fleet_id "berlin": add it to ETL_FLEETS`+"\n")
	require.Contains(t, out, "4 dead letters: 1 lat_range, 1 malformed, 2 unknown_fleet\n")

	t.Run("reprocessed ones", func(t *testing.T) {
		queue, err := deadletter.Open(filepath.Join(dir, "deadletters"), true)
		require.NoError(t, err)
		for l, err := range queue.All() {
			require.NoError(t, err)
			if l.Number != 2 {
				require.NoError(t, queue.MarkReprocessed([]deadletter.ID{l.ID}))
			}
		}
		queue.Close()
		out, _, _ := fleetETL(t, dir, "deadletters", "list")
		require.Contains(t, out, "1 dead letters: 1 malformed")
		out, _, _ = fleetETL(t, dir, "deadletters", "list", "--all")
		require.Equal(t, 3, strings.Count(out, "  reprocessed  "))
		require.Contains(t, out, "4 dead letters")
	})

	out, _, status = fleetETL(t, t.TempDir(), "deadletters", "list")
	require.Zero(t, status)
	require.Equal(t, "0 dead letters: 0\n", out)
}

func TestWrongFlagsOfDeadLetters(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such reason": {[]string{"list", "--reason", "bad"}, `--reason "bad": unknown reason: the reasons are malformed, missing_field`},
		"no time":        {[]string{"list", "--since", "noon"}, `--since "noon": give a time such as`},
		"time to come":   {[]string{"list", "--until", "-2h"}, `--until "-2h"`},
		"no limit":       {[]string{"list", "--limit", "-1"}, "--limit -1: give 1 or more"},
		"no field":       {[]string{"reprocess", "--dry-run", "--set", "fleet=wuxi"}, `--set fleet=wuxi: unknown field "fleet"`},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"deadletters"}, c.args...)
			if name == "time to come" {
				args = []string{"deadletters", "list", "--until=-2h"}
			}
			if name == "no limit" {
				args = []string{"deadletters", "list", "--limit=-1"}
			}
			_, stderr, status := fleetETL(t, t.TempDir(), args...)
			require.Equal(t, exitFailed, status)
			require.Contains(t, stderr, c.want)
		})
	}
}

func TestDryRunReportsWhatReprocessingWouldDo(t *testing.T) {
	dir := t.TempDir()
	writeDeadLetters(t, dir)
	var r struct {
		DryRun      bool             `json:"dry_run"`
		DeadLetters int64            `json:"dead_letters"`
		Skipped     int64            `json:"dead_letters_skipped"`
		Read        int64            `json:"records_read"`
		Stored      int64            `json:"records_stored"`
		Duplicates  int64            `json:"records_duplicate"`
		Rejected    map[string]int64 `json:"records_rejected"`
		Failures    []reprocessError `json:"failures"`
		Result      string           `json:"result"`
	}
	out, stderr, status := fleetETL(t, dir, "deadletters", "reprocess", "--dry-run", "--report", "json")
	require.Equal(t, exitRejected, status, stderr)
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.True(t, r.DryRun)
	require.EqualValues(t, 4, r.DeadLetters)
	require.EqualValues(t, 1, r.Skipped)
	require.EqualValues(t, 3, r.Read)
	require.Equal(t, map[string]int64{"unknown_fleet": 2, "lat_range": 1}, r.Rejected)
	require.Len(t, r.Failures, 4)
	require.Equal(t, "day.csv:3", r.Failures[0].Origin)
	require.Contains(t, r.Failures[0].Why, "could not be parsed into fields")

	r.Rejected = nil
	out, stderr, status = fleetETL(t, dir, "deadletters", "reprocess", "--dry-run", "--report", "json", "--reason", "unknown_fleet", "--set", "fleet_id=wuxi")
	require.Equal(t, exitOK, status, stderr)
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.EqualValues(t, 1, r.Stored)
	require.EqualValues(t, 1, r.Duplicates, "it was sent twice")
	require.Empty(t, r.Rejected)
	require.Equal(t, "dry run, nothing written: all records would be stored", r.Result)

	out, _, status = fleetETL(t, dir, "deadletters", "reprocess", "--dry-run")
	require.Equal(t, exitRejected, status)
	require.Contains(t, out, "dead letter 2 of day.csv:3: its raw text could not be parsed into fields")
	require.Contains(t, out, "would be rejected  3\n  lat_range        1\n  unknown_fleet    2\n")
	require.NoFileExists(t, filepath.Join(dir, "deadletters", "deadletters.reprocessed"), "nothing was written")
	out, _, _ = fleetETL(t, dir, "deadletters", "list")
	require.Contains(t, out, "4 dead letters")
}

// memory is a writer that keeps records in memory.
type memory struct{ rows map[string]telemetry.Record }

func (m *memory) Run(_ context.Context, in <-chan pipeline.ValidBatch) error {
	for c := range in {
		for _, item := range c.Items {
			m.rows[item.DeviceID+pipeline.TimeText(item.TimeMs)] = item.Record
		}
		c.Done()
	}
	return nil
}

func TestReprocessingKeepsRejectedRecordsOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deadletters")
	writeDeadLetters(t, filepath.Dir(dir))
	store := &memory{rows: map[string]telemetry.Record{}}
	reprocess := func(c reprocessDeadLettersCommand, fleets ...string) *reprocessReport {
		t.Helper()
		r := &reprocessReport{}
		source, queue, err := c.source(dir, r)
		require.NoError(t, err)
		defer queue.Close()
		letters := deadletter.NewFile(dir, twoPerFile, logrus.New(), nil, time.Now)
		defer letters.Close()
		p := pipeline.New(pipeline.Options{
			Validator: validate.New(fleets, 100, nil), Writer: store, DeadLetters: letters, Registerer: prometheus.NewRegistry(),
			Now: time.Now, Queue: 1,
		})
		require.NoError(t, p.Run(t.Context(), t.Context(), source))
		require.NoError(t, source.Flush())
		s := p.Summary()
		r.report = &report{Read: s.Received, Stored: s.Stored, Duplicates: s.Duplicates, RejectedTotal: total(s.Rejected)}
		return r
	}
	list := func(args ...string) (lines []listedDeadLetter) {
		t.Helper()
		out, _, status := fleetETL(t, filepath.Dir(dir), append([]string{"deadletters", "list", "--format", "json"}, args...)...)
		require.Zero(t, status)
		for line := range strings.Lines(out) {
			var l listedDeadLetter
			require.NoError(t, json.Unmarshal([]byte(line), &l))
			lines = append(lines, l)
		}
		return lines
	}

	for range 3 { // nothing is fixed: as many are open as before
		r := reprocess(reprocessDeadLettersCommand{}, "wuxi")
		require.EqualValues(t, 3, r.Read)
		require.EqualValues(t, 1, r.Skipped)
		require.EqualValues(t, 3, r.RejectedTotal)
		require.Len(t, list(), 4)
		require.Empty(t, store.rows)
	}
	require.Len(t, list("--all"), 4+3*3)
	again := list("--source", "deadletters")
	require.Len(t, again, 3)
	require.Equal(t, "deadletters", again[0].Origin)
	require.Equal(t, "bus-1;berlin", again[0].Raw, "as it came")
	before := list("--all")[again[0].Position-1]
	require.Equal(t, again[0].Record, before.Record, "the position is the number of the previous dead letter")
	require.True(t, before.Reprocessed)

	r := reprocess(reprocessDeadLettersCommand{deadLetterFlags: deadLetterFlags{Reason: []string{"unknown_fleet"}}, Set: map[string]string{"fleet_id": "wuxi"}}, "wuxi")
	require.EqualValues(t, 2, r.Read)
	require.EqualValues(t, 1, r.Stored)
	require.EqualValues(t, 1, r.Duplicates)
	require.Len(t, store.rows, 1)
	require.Len(t, list(), 2)
	r = reprocess(reprocessDeadLettersCommand{Set: map[string]string{"lat": "9.1"}})
	require.EqualValues(t, 1, r.Stored)
	require.Len(t, store.rows, 2)
	left := list()
	require.Len(t, left, 1, "a dead letter that can't be reprocessed stays open")
	require.Equal(t, "malformed", left[0].Reason)
	require.Zero(t, reprocess(reprocessDeadLettersCommand{}).Read)
}
