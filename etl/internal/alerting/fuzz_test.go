package alerting

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzParseRules checks that any text is an error or rules that an engine works with.
func FuzzParseRules(f *testing.F) {
	text, err := os.ReadFile("../../../data/alert-rules.yml")
	require.NoError(f, err)
	for _, seed := range []string{string(text), "defaults: {speed_limit: {limit: 80}}", "fleets: {a: &a {temperature: {high: {LOW: 8}}}, b: *a}", "a: &a [*a]", "- !!binary x", "devices: {d: {device_offline: {after: {LOW: 1s}}}}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := rules.Parse("r", text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				require.NotEmpty(t, line)
			}
			return
		}
		again, err := rules.Parse("another", text)
		require.NoError(t, err)
		require.Equal(t, r.Fingerprint(), again.Fingerprint())
		// An engine must work with any valid rules.
		var s State
		e := New(r, circles{fence("depot", 100)})
		var events []telemetry.AlertEvent
		for i := range 20 {
			record := at(float64(i*i*60), float64(i%5)*50, kmh(float64(i*20)), pct(int32(100-i*5)), degrees(float64(i*10-100)), within(float64(i)))
			record.DeviceID, record.FleetID = []string{"d", "truck-7"}[i/10], []string{"a", "b"}[i/5%2]
			e.Apply(&s, &record, func(x telemetry.AlertEvent) { events = append(events, x) })
		}
		checkSequence(t, events, &s)
	})
}
