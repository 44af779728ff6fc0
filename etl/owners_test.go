package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// apiAddress is the address of the API in the tests of several fleets.
const apiAddress = "127.0.0.1:18081"

// hostile is fleet-etl with the API, for the fleets a and b. Each has a token: its own name, repeated.
func (s *site) hostile(env ...string) (v *service, send func(fleet string, record map[string]any) string) {
	var lines []string
	for _, fleet := range []string{"a", "b"} {
		lines = append(lines, fmt.Sprintf("%s %x read,write", fleet, sha256.Sum256([]byte(strings.Repeat(fleet, 32)))))
	}
	tokens := filepath.Join(s.dir, "tokens")
	require.NoError(s.t, os.WriteFile(tokens, []byte(strings.Join(lines, "\n")), 0o600))
	v = s.service(append([]string{"ETL_SOURCES=api", "ETL_API_ADDRESS=" + apiAddress, "ETL_API_TOKENS_FILE=" + tokens, "ETL_PROCESSOR_ENABLED=true"}, env...)...)
	v.start()
	require.Eventually(s.t, func() bool { return up(apiAddress) }, 20*time.Second, 10*time.Millisecond, v.said())
	return v, func(fleet string, record map[string]any) string {
		text, err := json.Marshal(record)
		require.NoError(s.t, err)
		request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+apiAddress+"/v1/telemetry", bytes.NewReader(text))
		require.NoError(s.t, err)
		request.Header.Set("Authorization", "Bearer "+strings.Repeat(fleet, 32))
		response, err := client.Do(request)
		require.NoError(s.t, err)
		defer response.Body.Close()
		var answer struct {
			Accepted int
			Results  []struct{ Reason string }
		}
		require.NoError(s.t, json.NewDecoder(response.Body).Decode(&answer))
		require.Eventually(s.t, func() bool { return v.metric("fleet_etl_spool_entries") == 0 }, time.Minute, 20*time.Millisecond, v.said())
		if answer.Accepted > 0 {
			return "accepted"
		}
		return answer.Results[0].Reason
	}
}

func TestFleetCannotWriteAnotherFleetsDevice(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	record := func(device string, at time.Time, lat float64) map[string]any {
		return map[string]any{"device_id": device, "timestamp": at.Format(time.RFC3339), "lat": lat, "lon": 13, "battery_pct": 4}
	}
	v, send := s.hostile()
	require.Equal(t, "accepted", send("a", record("truck", now.Add(-2*time.Hour), 52)))
	require.Equal(t, "accepted", send("a", record("truck", now.Add(-time.Hour), 52.1)))
	want := s.contents()
	for _, at := range []time.Time{now.Add(290 * time.Second), now.Add(-time.Hour), now.Add(-90 * time.Minute), now.Add(-20 * 24 * time.Hour)} {
		require.Equal(t, "wrong_fleet", send("b", record("truck", at, 1)))
	}
	v.stop()
	require.Equal(t, want, s.contents())

	// After a restart the owner is not in memory: the record is accepted, and becomes a dead letter.
	v, send = s.hostile()
	require.Equal(t, "accepted", send("b", record("truck", now.Add(200*time.Second), 1)))
	require.Equal(t, "wrong_fleet", send("b", record("truck", now.Add(201*time.Second), 1)))
	require.Equal(t, "accepted", send("a", record("truck", now, 52.2)))
	v.stop()
	require.Equal(t, []string{"wrong_fleet", "wrong_fleet", "wrong_fleet", "wrong_fleet", "wrong_fleet", "wrong_fleet"}, s.openDeadLetters())
	_, status := s.reprocess("--set", "fleet_id=a", "--limit", "1")
	require.Equal(t, 2, status, "the sender may not write to that fleet")
	c := s.contents()
	require.Equal(t, 3, c.rows())
	require.NotContains(t, c.latest, "b")

	// An administrator moves the device.
	out, status := s.run("devices", "claim", "b", "truck", "--since", now.Add(100*time.Second).Format(time.RFC3339))
	require.Zero(t, status, out)
	require.Contains(t, out, "before to a")
	r, _ := s.reprocess()
	require.EqualValues(t, 3, r.Stored, "records since the move are stored, earlier ones are not")
	c = s.contents()
	require.Equal(t, "b", c.byID["truck"].FleetID)
	require.Empty(t, c.latest["a"])
	out, status = s.run("devices", "show", "truck", "unknown")
	require.Zero(t, status, out)
	require.Regexp(t, `(?s)truck +b .*administrator\ntruck +a .*record\nunknown +- `, out)
}

func TestUnknownDevicesAreHeldUntilTheyAreClaimed(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	path := filepath.Join(s.dir, "new.csv")
	require.NoError(t, os.WriteFile(path, []byte("device_id,fleet_id,timestamp,lat,lon\nnew,a,"+now.Format(time.RFC3339)+",52,13\n"), 0o600))
	s.env = append(s.env, "ETL_UNKNOWN_DEVICES=hold")
	r, status := s.load(path)
	require.Equal(t, 2, status)
	require.Equal(t, map[string]int64{"held_device": 1}, r.Rejected)
	require.Zero(t, r.Stored)
	out, status := s.run("devices", "claim", "a", "new")
	require.Zero(t, status, out)
	again, status := s.reprocess("--reason", "held_device")
	require.Zero(t, status, again.Result)
	require.EqualValues(t, 1, again.Stored)
	c := s.contents()
	require.Equal(t, map[string][]cassandra.Telemetry{"new": {{DeviceID: "new", FleetID: "a", Ts: now, Lat: 52, Lon: 13, Zone: "unknown"}}}, c.history)
}

// The limit holds after a restart, and what it kept out is stored once there is room.
func TestDevicesOfAFleetAreLimited(t *testing.T) {
	s := newSite(t)
	now := time.Now().UTC().Truncate(time.Second)
	s.env = append(s.env, "ETL_FLEET_MAX_DEVICES=2")
	record := func(device string, second int) map[string]any {
		return map[string]any{"device_id": device, "timestamp": now.Add(time.Duration(second) * time.Second).Format(time.RFC3339), "lat": 52, "lon": 13}
	}
	v, send := s.hostile()
	for i := range 4 {
		require.Equal(t, "accepted", send("a", record(fmt.Sprint("a-", i), 0)))
	}
	v.stop()
	v, send = s.hostile()
	require.Equal(t, "accepted", send("a", record("a-4", 0)))
	require.Equal(t, "accepted", send("a", record("a-1", 1)))
	require.Equal(t, "accepted", send("b", record("b-0", 0)))
	v.stop()
	require.Equal(t, []string{"too_many_devices", "too_many_devices", "too_many_devices"}, s.openDeadLetters())
	c := s.contents()
	require.Equal(t, 4, c.rows(), "of two devices of a, and one of b")

	s.env = append(s.env, "ETL_FLEET_MAX_DEVICES=4")
	r, _ := s.reprocess("--reason", "too_many_devices")
	require.EqualValues(t, 2, r.Stored)
	require.Equal(t, []string{"too_many_devices"}, s.openDeadLetters())
}
