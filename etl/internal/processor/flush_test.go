package processor

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// alertWrites notes the writes of alerts.
type alertWrites struct {
	*fakestore.View
	mu  sync.Mutex
	ops []string
}

func (w *alertWrites) note(table string, rows []cassandra.Mutation[cassandra.Alert]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range rows {
		verb := "put"
		if r.Delete {
			verb = "delete"
		}
		w.ops = append(w.ops, verb+" "+table+" "+r.Row.Severity)
	}
}

func (w *alertWrites) ApplyDeviceAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	w.note("device", rows)
	return nil
}

func (w *alertWrites) ApplyFleetAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	w.note("fleet", rows)
	return nil
}

func (w *alertWrites) ApplyOpenAlerts(_ context.Context, rows []cassandra.Mutation[cassandra.Alert]) error {
	w.note("open", rows)
	return nil
}

func TestAlertChangesOfOneFlushAreCoalesced(t *testing.T) {
	event := func(transition telemetry.Transition, severity telemetry.Severity) telemetry.AlertEvent {
		e := telemetry.AlertEvent{Transition: transition}
		e.Alert = telemetry.Alert{FleetID: "north", DeviceID: "v1", Type: telemetry.SpeedLimit, Severity: severity, OpenedMs: 1}
		if transition == telemetry.AlertResolved {
			e.EndedMs = 2
		}
		return e
	}
	opened, escalated, resolved := telemetry.AlertOpened, telemetry.AlertEscalated, telemetry.AlertResolved
	for name, c := range map[string]struct {
		events []telemetry.AlertEvent
		want   []string
	}{
		"opened": {
			[]telemetry.AlertEvent{event(opened, "LOW")},
			[]string{"put device LOW", "put fleet LOW", "put open LOW"},
		},
		"opened and resolved": {
			[]telemetry.AlertEvent{event(opened, "LOW"), event(resolved, "LOW")},
			[]string{"put device LOW", "put fleet LOW"},
		},
		"opened, escalated and resolved": {
			[]telemetry.AlertEvent{event(opened, "LOW"), event(escalated, "HIGH"), event(resolved, "HIGH")},
			[]string{"put device HIGH", "put fleet HIGH"},
		},
		"opened and escalated": {
			[]telemetry.AlertEvent{event(opened, "LOW"), event(escalated, "MEDIUM")},
			[]string{"put device MEDIUM", "put fleet MEDIUM", "put open MEDIUM"},
		},
		"escalated later": {
			[]telemetry.AlertEvent{event(escalated, "HIGH")},
			[]string{"delete fleet LOW", "delete fleet MEDIUM", "put device HIGH", "put fleet HIGH", "put open HIGH"},
		},
		"resolved later": {
			[]telemetry.AlertEvent{event(resolved, "LOW")},
			[]string{"delete open LOW", "put device LOW", "put fleet LOW"},
		},
		"escalated and resolved later": {
			[]telemetry.AlertEvent{event(escalated, "MEDIUM"), event(resolved, "MEDIUM")},
			[]string{"delete fleet LOW", "delete open MEDIUM", "put device MEDIUM", "put fleet MEDIUM"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := &device{id: "v1", lastSeen: time.Now()}
			for _, e := range c.events {
				v.Alert(e)
			}
			changes := &derived.Changes{}
			v.takeAlerts(changes, 1000)
			store := &alertWrites{View: fakestore.New().View(nil)}
			logger, _ := logtest.NewNullLogger()
			w := derived.Writer{Store: store, Exec: executor.New(executor.Options{MaxInFlight: 4, RetryRate: 1}, logger, prometheus.NewRegistry(), time.Now)}
			failed, err := w.Write(t.Context(), changes, func(context.Context) error { return nil })
			require.NoError(t, err)
			require.Empty(t, failed)
			slices.Sort(store.ops)
			require.Equal(t, c.want, store.ops)
			require.True(t, v.clean(), "taken")
		})
	}
}
