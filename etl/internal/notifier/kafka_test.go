package notifier_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// outcomes returns the notifications by outcome.
func outcomes(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "fleet_etl_notifications_total" {
			continue
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "outcome" {
					got[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	return got
}

// nowhere is where no broker listens.
var nowhere = kafka.Connection{Brokers: []string{"127.0.0.1:1"}}

func TestRealKafka(t *testing.T) {
	connection := kafka.Connection{Brokers: testenv.KafkaBrokers(t)}
	name := fmt.Sprintf("test-alerts-%d", time.Now().UnixNano())
	logger, hook := test.NewNullLogger()
	reg := prometheus.NewRegistry()
	receiver, err := notifier.NewKafka(connection.Client, name, logger, reg, time.Now)
	require.NoError(t, err)
	a := telemetry.Alert{
		FleetID: "wuxi", DeviceID: "truck-7", Type: telemetry.SpeedLimit, Severity: telemetry.Medium,
		OpenedMs: 1_750_000_000_123, StartedMs: 1_749_999_990_000, Peak: 97.5, Threshold: 80, Zone: "harbor", Lat: 31.5, Lon: 120.25, Message: "97.5 km/h",
	}
	escalated, resolved := a, a
	escalated.Severity, resolved.Severity, resolved.EndedMs = telemetry.High, telemetry.High, 1_750_000_060_000
	receiver.Notify([]telemetry.AlertEvent{{Alert: a, Transition: telemetry.AlertOpened}})
	// The first record creates the topic, which may take longer than Close waits.
	require.Eventually(t, func() bool { return outcomes(t, reg)["sent"] == 1 }, eventually, 20*time.Millisecond)
	receiver.Notify([]telemetry.AlertEvent{
		{Alert: escalated, Transition: telemetry.AlertEscalated, From: telemetry.Medium},
		{Alert: resolved, Transition: telemetry.AlertResolved},
	})
	receiver.Close()
	assert.Equal(t, map[string]float64{"sent": 3, "failed": 0, "dropped": 0}, outcomes(t, reg))
	assert.Empty(t, hook.AllEntries())

	reader, err := kgo.NewClient(kgo.SeedBrokers(connection.Brokers...), kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), eventually)
	defer cancel()
	var values []string
	for len(values) < 3 {
		fetches := reader.PollFetches(ctx)
		require.NoError(t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			assert.Equal(t, "truck-7", string(r.Key))
			values = append(values, string(r.Value))
		})
	}
	assert.Equal(t, `{"fleet_id":"wuxi","device_id":"truck-7","type":"speed_limit","severity":"MEDIUM","transition":"opened",`+
		`"opened_at":"2025-06-15T15:06:40.123Z","started_at":"2025-06-15T15:06:30.000Z","ended_at":null,"peak":97.5,"threshold":80,`+
		`"zone":"harbor","lat":31.5,"lon":120.25,"message":"97.5 km/h"}`, values[0])
	assert.Contains(t, values[1], `"severity":"HIGH","transition":"escalated"`)
	assert.Contains(t, values[2], `"transition":"resolved"`)
	assert.Contains(t, values[2], `"ended_at":"2025-06-15T15:07:40.000Z"`)
}

// An unavailable Kafka costs a bounded amount of memory and blocks nothing.
func TestUnavailableKafkaBlocksNothing(t *testing.T) {
	t.Parallel()
	logger, hook := test.NewNullLogger()
	reg := prometheus.NewRegistry()
	receiver, err := notifier.NewKafka(nowhere.Client, "alerts", logger, reg, time.Now)
	require.NoError(t, err)
	events := make([]telemetry.AlertEvent, 12_000)
	for i := range events {
		events[i] = telemetry.AlertEvent{Alert: telemetry.Alert{DeviceID: fmt.Sprint("truck-", i), Type: telemetry.DeviceOffline}, Transition: telemetry.AlertOpened}
	}
	began := time.Now()
	receiver.Notify(events)
	assert.Less(t, time.Since(began), eventually)
	require.Eventually(t, func() bool { return outcomes(t, reg)["dropped"] == 2000 }, eventually, 5*time.Millisecond)
	require.Eventually(t, func() bool {
		logged := map[string]int{}
		for _, e := range hook.AllEntries() {
			logged[e.Message]++
		}
		return logged["kafka broker unavailable, buffering alerts"] == 1 && logged["producing alerts to kafka failed, some are lost to the topic"] == 1
	}, eventually, 5*time.Millisecond, "each once")
	began = time.Now()
	receiver.Close()
	assert.Less(t, time.Since(began), eventually)
	assert.Equal(t, map[string]float64{"sent": 0, "failed": 0, "dropped": 12_000}, outcomes(t, reg))
	last := hook.LastEntry()
	assert.Equal(t, "flush of alerts to kafka timed out, they are lost to the topic", last.Message)
	assert.EqualValues(t, 10_000, last.Data["alerts"])
}

func TestEventThatCannotBeEncodedIsCounted(t *testing.T) {
	logger, hook := test.NewNullLogger()
	reg := prometheus.NewRegistry()
	receiver, err := notifier.NewKafka(nowhere.Client, "alerts", logger, reg, time.Now)
	require.NoError(t, err)
	defer receiver.Close()
	receiver.Notify([]telemetry.AlertEvent{{Alert: telemetry.Alert{DeviceID: "truck-1", Peak: math.NaN()}}})
	assert.Equal(t, map[string]float64{"sent": 0, "failed": 1, "dropped": 0}, outcomes(t, reg))
	require.NotNil(t, hook.LastEntry())
	assert.ErrorContains(t, hook.LastEntry().Data["error"].(error), "encode alert of truck-1: ")
}
