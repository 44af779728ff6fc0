package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// reprocessReport has the fields that tests read of the report of reprocess.
type reprocessReport struct {
	report
	DeadLetters int64 `json:"dead_letters"`
	Skipped     int64 `json:"dead_letters_skipped"`
}

func (s *site) reprocess(args ...string) (reprocessReport, int) {
	s.t.Helper()
	cmd := s.command(append([]string{"deadletters", "reprocess", "--report", "json"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	status := exitStatus(s.t, cmd.Run())
	var r reprocessReport
	require.NoError(s.t, json.Unmarshal(stdout.Bytes(), &r), "%s%s", stdout.String(), stderr.String())
	return r, status
}

// openDeadLetters returns the reasons of the open dead letters.
func (s *site) openDeadLetters() (reasons []string) {
	s.t.Helper()
	cmd := s.command("deadletters", "list", "--format", "json")
	out, err := cmd.Output()
	require.NoError(s.t, err)
	for line := range strings.Lines(string(out)) {
		var l struct{ Reason string }
		require.NoError(s.t, json.Unmarshal([]byte(line), &l))
		reasons = append(reasons, l.Reason)
	}
	return reasons
}

func TestDeadLettersAreReprocessedAfterAFix(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC().Truncate(time.Minute)
	zone, err := time.LoadLocation("Asia/Shanghai")
	require.NoError(t, err)
	at := func(ago time.Duration) string { return now.Add(-ago).In(zone).Format("02.01.2006 15:04") }
	path := filepath.Join(s.dir, "taxis.csv")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join([]string{
		"taxi,when,latitude,longitude,v",
		"t1," + at(time.Hour) + ",48.1,11.5,50",
		"t1," + at(2*time.Hour) + ",48.1,11.5,fast", // not a number
		"t2," + at(time.Hour) + ",91,11.5,50",       // not a latitude
		"t2," + at(time.Hour) + ",48.1",             // too few fields
		"",
	}, "\n")), 0o600))
	args := []string{
		path, "--map", "device_id=taxi,timestamp=when,lat=latitude,lon=longitude,speed_kmh=v", "--set", "fleet_id=new", "--timezone", "Asia/Shanghai",
		"--layout", "02.01.2006 15:04",
	}
	s.env = append(s.env, "ETL_FLEETS=old")
	r, status := s.load(args...)
	require.Equal(t, 2, status)
	require.Equal(t, map[string]int64{"unknown_fleet": 2, "malformed": 2}, r.Rejected)
	require.ElementsMatch(t, []string{"malformed", "malformed", "unknown_fleet", "unknown_fleet"}, s.openDeadLetters())

	// Nothing is fixed yet: they are rejected again, and as many are open.
	again, status := s.reprocess("--reason", "unknown_fleet")
	require.Equal(t, 2, status)
	require.EqualValues(t, 2, again.DeadLetters)
	require.Len(t, s.openDeadLetters(), 4)
	out, status := s.run("deadletters", "reprocess", "--dry-run", "--set", "fleet_id=old")
	require.Equal(t, 2, status, out)
	require.Contains(t, out, "would be stored    1")
	c := s.contents()
	require.Zero(t, c.rows())

	// The fleet is allowed now.
	s.env = append(s.env, "ETL_FLEETS=old,new")
	again, status = s.reprocess("--reason", "unknown_fleet")
	require.Equal(t, 2, status)
	require.EqualValues(t, 1, again.Stored)
	require.Equal(t, map[string]int64{"lat_range": 1}, again.Rejected)
	again, status = s.reprocess("--reason", "lat_range", "--set", "lat=48.2")
	require.Zero(t, status, again.Result)
	require.EqualValues(t, 1, again.Stored)
	again, status = s.reprocess("--set", "speed_kmh=")
	require.Equal(t, 2, status, "one of the lines can't be parsed")
	require.EqualValues(t, 1, again.Stored)
	require.EqualValues(t, 1, again.Skipped)
	require.Equal(t, []string{"malformed"}, s.openDeadLetters())

	speed := 50.0
	want := map[string][]cassandra.Telemetry{
		"t1": {
			{DeviceID: "t1", FleetID: "new", Ts: now.Add(-time.Hour), Lat: 48.1, Lon: 11.5, SpeedKmh: &speed, Zone: "unknown"},
			{DeviceID: "t1", FleetID: "new", Ts: now.Add(-2 * time.Hour), Lat: 48.1, Lon: 11.5, Zone: "unknown"},
		},
		"t2": {{DeviceID: "t2", FleetID: "new", Ts: now.Add(-time.Hour), Lat: 48.2, Lon: 11.5, SpeedKmh: &speed, Zone: "unknown"}},
	}
	c = s.contents()
	require.Equal(t, want, c.history)

	// Reprocessing everything again writes the same rows.
	require.NoError(t, os.Remove(filepath.Join(s.dir, "deadletters", "deadletters.reprocessed")))
	again, _ = s.reprocess("--set", "lat=48.1,speed_kmh=50", "--reason", "unknown_fleet", "--limit", "1")
	require.EqualValues(t, 1, again.Stored, fmt.Sprint(again))
	c = s.contents()
	require.Equal(t, want, c.history)

	t.Run("killed and repeated", func(t *testing.T) { reprocessIsKilled(t, s.empty(t)) })
}

func reprocessIsKilled(t *testing.T, s *site) {
	const records = 3000
	now := time.Now().UTC().Truncate(time.Second)
	text := "device_id,fleet_id,timestamp,lat,lon\n"
	for i := range records {
		text += fmt.Sprintf("v%d,new,%s,48.1,11.5\n", i%10, now.Add(-time.Duration(i)*time.Second).Format(time.RFC3339))
	}
	path := filepath.Join(s.dir, "new.csv")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	rejecting := *s
	rejecting.env = append(append([]string{}, s.env...), "ETL_FLEETS=old")
	_, status := rejecting.load(path)
	require.Equal(t, 2, status)

	slow := s.command("deadletters", "reprocess")
	slow.Env = append(slow.Env, "ETL_BATCH_ROWS=1", "ETL_BUFFER_RECORDS=100", "ETL_MAX_IN_FLIGHT=1")
	require.NoError(t, slow.Start())
	started := func() bool {
		text, err := os.ReadFile(filepath.Join(s.dir, "deadletters", "deadletters.reprocessed"))
		return err == nil && len(text) > 0
	}
	require.Eventually(t, started, time.Minute, 5*time.Millisecond)
	require.NoError(t, slow.Process.Kill())
	_ = slow.Wait() // killed
	r, status := s.reprocess()
	require.Zero(t, status, r.Result)
	require.Less(t, r.DeadLetters, int64(records), "some were reprocessed before the kill")
	require.Empty(t, s.openDeadLetters())
	c := s.contents()
	require.Equal(t, records, c.rows())
}
