package query

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestResolvedAlertIsVisibleAtOnce(t *testing.T) {
	store := twoFleets()
	g := newFixture(t, store, withMemory(t))
	open, _ := items[alertItem](g, "a", "/v1/fleets/fleet-a/alerts")
	require.Equal(t, alertA, open[0].ID)
	require.False(t, open[0].Resolved)

	for range 3 {
		w := g.do("POST", "a-full", "/v1/alerts/"+open[0].ID+"/resolve")
		require.Equal(t, 200, w.Code, w.Body.String())
		require.JSONEq(t, `{"id":"`+alertA+`","resolved":true}`, w.Body.String())
	}
	require.Equal(t, []resolvedAlert{
		{alertKey("fleet-a", "HIGH", noon.Add(-time.Hour).UnixMilli(), "truck-1", "speeding"), noon.UnixMicro()},
	}, store.resolved, "once, with a later write time than its event's")

	seen, _ := items[alertItem](g, "a", "/v1/fleets/fleet-a/alerts")
	require.True(t, seen[0].Resolved, "the list cached before is not shown")
	require.Equal(t, "93 km/h in a zone of 50", seen[0].Message)
	require.Equal(t, 200, g.do("POST", "writer", "/v1/alerts/"+alertA+"/resolve").Code, "the right to write is enough")
}

func TestResolvedAlertIsNoLongerOpen(t *testing.T) {
	opened := noon.Add(-time.Hour).UnixMilli()
	alert := cassandra.Alert{FleetID: "fleet-a", DeviceID: "truck-1", Type: "speeding", Severity: "HIGH", OpenedMs: opened, Notify: true}
	resolve := func(t *testing.T, g *fixture, status int) {
		t.Helper()
		w := g.do("POST", "a-full", "/v1/alerts/"+alertA+"/resolve")
		require.Equal(t, status, w.Code, w.Body.String())
	}
	gone := []deletedAlert{{"fleet-a", "truck-1", "speeding", noon.UnixMicro()}}

	t.Run("it is removed from the open alerts", func(t *testing.T) {
		store := twoFleets()
		other := alert
		other.Type = "battery"
		store.open = []cassandra.Alert{alert, other}
		g := newFixture(t, store)
		for range 2 {
			resolve(t, g, 200)
		}
		require.Equal(t, gone, store.deleted, "once, with the current time")
		require.Equal(t, []cassandra.Alert{other}, store.open)
	})
	t.Run("another open alert of its type stays", func(t *testing.T) {
		store := twoFleets()
		resolved := newFixture(t, store)
		resolve(t, resolved, 200)
		next := alert
		next.OpenedMs += 60_000
		store.open, store.deleted = []cassandra.Alert{next}, nil
		resolve(t, resolved, 200)
		require.Empty(t, store.deleted)
		require.Equal(t, []cassandra.Alert{next}, store.open)
	})
	t.Run("an interrupted request is repeated", func(t *testing.T) {
		store := twoFleets()
		store.open = []cassandra.Alert{alert}
		g := newFixture(t, store)
		store.err, store.fail = &cassandra.Error{Op: "write", Reason: cassandra.ReasonNoHosts, Err: io.EOF}, 3 // after a read and a write
		resolve(t, g, 503)
		require.Len(t, store.resolved, 1)
		require.Empty(t, store.deleted)
		store.err = nil
		resolve(t, g, 200)
		require.Equal(t, gone, store.deleted)
		require.Len(t, store.resolved, 1)
	})
}

func TestAlertIDContainsKey(t *testing.T) {
	for name, key := range map[string]cassandra.Alert{
		"plain":                       alertKey("fleet-a", "HIGH", 1793872800123, "truck-1", "speeding"),
		"names with marks":            alertKey("a:b.c_d-e", "LOW", 0, "x:y", "geofence:enter"),
		"names that others may write": alertKey("f", "MEDIUM", 1, "a\",\"b", "ü/|\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parseAlertID(alertID(key))
			require.True(t, ok)
			require.Equal(t, key, got)
			require.Regexp(t, `^[A-Za-z0-9_-]+$`, alertID(key), "it needs no escaping in a path")
		})
	}
	for name, text := range map[string]string{
		"too few parts":       "WyJhIl0",
		"an unknown severity": alertID(alertKey("f", "URGENT", 1, "d", "t")),
		"an empty fleet":      alertID(alertKey("", "HIGH", 1, "d", "t")),
		"a time before 1970":  alertID(alertKey("f", "HIGH", -1, "d", "t")),
		"another spelling":    alertID(alertKey("f", "HIGH", 1, "d", "t")) + "=",
	} {
		_, ok := parseAlertID(text)
		require.False(t, ok, name)
	}
}
