package query

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/testenv/platform"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The real store implements Store.
var _ Store = (*cassandra.Store)(nil)

// realStore opens a keyspace on a real cluster. It reads at ALL, so that a test sees its writes.
func realStore(t *testing.T) *cassandra.Store {
	cfg := platform.Keyspace(t)
	cfg.ReadConsistency, cfg.Timeout = "ALL", 20*time.Second
	store, err := cassandra.Open(t.Context(), cfg, silent(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}

func TestRealStore(t *testing.T) {
	store := realStore(t)
	ctx := t.Context()
	// The store reads up to the time of its own clock.
	now := time.Now().UTC().Truncate(time.Second)
	g := newFixture(t, nil, func(o *Options) {
		o.Store = func() (Store, bool) { return store, true }
		o.Limits.Timeout = time.Minute // the machine may be busy
	})
	g.now = now

	// A truck that went from fleet-b to fleet-a: 12,000 positions over three days, the older half for fleet-b.
	const n, half = 12_000, 6_000
	interval := 20 * time.Second
	history := map[cassandra.Day][]cassandra.TelemetryRow{}
	for i := range n {
		fleet, ts := "fleet-a", now.Add(-time.Duration(i)*interval).UnixMilli()
		if i >= half {
			fleet = "fleet-b"
		}
		day := cassandra.DayOf(ts)
		history[day] = append(history[day], cassandra.TelemetryRow{
			TsMs: ts, FleetID: fleet, Lat: 52.5, Lon: 13.4, SpeedKmh: ptr(36.0), Zone: "unknown", WriteTimeUs: ts * 1000, TTLSeconds: 20 * 24 * 3600,
		})
	}
	for day, rows := range history {
		for part := range slices.Chunk(rows, 100) {
			require.NoError(t, store.WriteHistory(ctx, "truck-1", day, part))
		}
	}
	names := named("truck", 30)
	for _, name := range names {
		ms := now.UnixMilli()
		require.NoError(t, store.WriteLatestByFleet(ctx, "fleet-a", cassandra.Bucket(name), []cassandra.LatestRow{{
			DeviceID: name, LastTsMs: &ms, Lat: ptr(52.5), Lon: ptr(13.4), Zone: "depot", WriteTimeUs: ms * 1000,
		}}))
		require.NoError(t, store.WriteDevices(ctx, "fleet-a", []cassandra.DeviceRow{{DeviceID: name, Status: cassandra.StatusActive, ActivatedAtMs: ms, StatusWriteTimeUs: ms * 1000}}))
	}
	for fleet, status := range map[string]cassandra.Status{"fleet-a": cassandra.StatusActive, "fleet-b": cassandra.StatusMoved} {
		require.NoError(t, store.WriteFleet(ctx, fleet))
		require.NoError(t, store.WriteDevices(ctx, fleet, []cassandra.DeviceRow{{DeviceID: "truck-1", Status: status, StatusWriteTimeUs: 1}}))
	}
	var alerts []cassandra.Alert
	for i := range 120 {
		ts := now.Add(-time.Duration(i/4) * 7 * time.Hour).UnixMilli() // four at each instant
		alerts = append(alerts, cassandra.Alert{
			FleetID: "fleet-a", Severity: cassandra.Severities[i%3], OpenedMs: ts, DeviceID: names[i%4], Type: "speeding", Message: fmt.Sprint("alert ", i),
		})
	}
	for _, row := range alerts {
		require.NoError(t, store.ApplyFleetAlerts(ctx, cassandra.Put(row.OpenedMs*1000, row)))
	}
	for d := range 10 {
		day := cassandra.DayOf(now.UnixMilli()) - cassandra.Day(d)
		var hours []cassandra.AnalyticsRow
		for hour := range int32(24) {
			hours = append(hours, cassandra.AnalyticsRow{FleetID: "fleet-a", Day: day, Hour: hour, TotalDistanceKm: 1.5, ActiveDevicesCount: 30})
		}
		require.NoError(t, store.ApplyAnalytics(ctx, cassandra.Put(1, hours...)))
	}

	t.Run("tracks by pages and as files", func(t *testing.T) {
		for token, want := range map[string]int{"all": n, "a": half, "b": n - half} {
			all, _ := everyPage[positionItem](g, token, "/v1/devices/truck-1/track?from=-5d&limit=5000", nil)
			require.Len(t, all, want, token)
			for i := range all[1:] {
				require.Greater(t, all[i].Timestamp, all[i+1].Timestamp)
			}
			file := rows(t, g.get(token, "/v1/devices/truck-1/track?from=-5d&format=csv"))
			require.Equal(t, telemetry.Fields, file[0])
			require.Len(t, file, want+1, token)
			require.Len(t, readGPX(t, g.get(token, "/v1/devices/truck-1/track?from=-5d&format=gpx").Body.Bytes()).points(), want, token)
		}
	})
	t.Run("lists", func(t *testing.T) {
		fleets, _ := items[fleetItem](g, "all", "/v1/fleets")
		require.Equal(t, []fleetItem{{"fleet-a"}, {"fleet-b"}}, fleets)
		devices, _ := everyPage[deviceItem](g, "a", "/v1/fleets/fleet-a/devices?limit=7", nil)
		require.Len(t, devices, 1+len(names), "and truck-1")
		latest, pages := everyPage[positionItem](g, "a", "/v1/fleets/fleet-a/latest?limit=10", nil)
		require.Len(t, latest, len(names))
		require.Equal(t, 3, pages)
		require.Equal(t, "fleet-a", latest[0].FleetID)
		hours, _ := everyPage[hourItem](g, "a", "/v1/fleets/fleet-a/analytics?from=-6d&limit=50", nil)
		require.Len(t, hours, 6*24+1)
		w := g.get("a", "/v1/fleets/fleet-a/devices?page="+forged(t, g, "/v1/fleets/fleet-a/devices?limit=1", func(c map[string]any) { c["p"] = "bm9uZQ" }))
		require.Equal(t, http.StatusBadRequest, w.Code, "a position that the store did not return: %s", w.Body.String())
	})
	t.Run("alerts and a resolved one", func(t *testing.T) {
		path := "/v1/fleets/fleet-a/alerts?from=-30d&limit=7"
		all, _ := everyPage[alertItem](g, "a", path, nil)
		require.Len(t, all, len(alerts))
		some, _ := everyPage[alertItem](g, "a", path+"&severity=LOW", nil)
		require.Len(t, some, len(alerts)/3)
		chosen := all[50]
		open, ok := parseAlertID(chosen.ID)
		require.True(t, ok)
		require.Equal(t, "fleet-a", open.FleetID)
		open.Notify = true
		other := open
		other.Type = "battery"
		for _, a := range []cassandra.Alert{open, other} {
			require.NoError(t, store.ApplyOpenAlerts(ctx, cassandra.Put(now.Add(-time.Minute).UnixMicro(), a)))
		}
		for range 2 {
			require.Equal(t, http.StatusOK, g.do(http.MethodPost, "a-full", "/v1/alerts/"+chosen.ID+"/resolve").Code)
		}
		left, err := store.OpenAlerts(ctx, "fleet-a")
		require.NoError(t, err)
		require.Len(t, left, 1, "it is no longer open")
		require.Equal(t, other.Type, left[0].Type)
		// The same input again, as a replay writes it.
		for _, row := range alerts {
			require.NoError(t, store.ApplyFleetAlerts(ctx, cassandra.Put(row.OpenedMs*1000, row)))
		}
		again, _ := everyPage[alertItem](g, "a", path, nil)
		require.Len(t, again, len(alerts))
		for i, alert := range again {
			want := all[i]
			want.Resolved = want.ID == chosen.ID
			require.Equal(t, want, alert, "one is resolved, its message and all others are as they were")
		}
		require.Equal(t, http.StatusNotFound, g.do(http.MethodPost, "all", "/v1/alerts/"+alertID(other)+"/resolve").Code)
		after, _ := everyPage[alertItem](g, "a", path, nil)
		require.Len(t, after, len(alerts), "an unknown alert is not created")
	})
}
