package plugin

import (
	"encoding/json"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
)

func TestCheckHealth(t *testing.T) {
	ok := func(stage, detail string) diagnose.Finding {
		return diagnose.Finding{Stage: stage, Status: diagnose.OK, Detail: detail}
	}
	for name, c := range map[string]struct {
		settings map[string]any
		findings []diagnose.Finding
		status   backend.HealthStatus
		want     string
	}{
		"healthy": {map[string]any{}, []diagnose.Finding{ok("tcp", "9042"), ok("login", "Cassandra 5"), ok("data", "2 fleets")}, backend.HealthStatusOk,
			"Connected to Cassandra: Cassandra 5; 2 fleets"},
		"restricted": {map[string]any{"allowedFleets": "north"}, []diagnose.Finding{ok("login", "Cassandra 5")}, backend.HealthStatusOk,
			"Connected to Cassandra: Cassandra 5; only fleets north"},
		"warning": {map[string]any{}, []diagnose.Finding{ok("login", "Cassandra 5"), {Stage: "data", Status: diagnose.Warning, Detail: "no record.", Remedy: "Start fleet-etl."}},
			backend.HealthStatusOk, "Connected to Cassandra: Cassandra 5. Warning: data: no record. Start fleet-etl."},
		"failure": {map[string]any{"allowedFleets": "north"}, []diagnose.Finding{ok("address", "a"), {Stage: "tcp", Status: diagnose.Error, Detail: "connection refused", Remedy: "Check the port."}},
			backend.HealthStatusError, "Failed at tcp: connection refused. Check the port."},
		"settings": {map[string]any{"contactPoints": " ", "maxRows": 0}, nil, backend.HealthStatusError,
			`settings: Rows per query 0: give a number from 1 to 1000000; Contact points "": name at least one, as host or host:port`},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestDatasource(t, &fakeStore{}, c.settings, c.findings...)
			got, err := d.CheckHealth(t.Context(), nil)
			require.NoError(t, err)
			assert.Equal(t, c.status, got.Status)
			assert.Equal(t, c.want, got.Message)
			outcome := map[backend.HealthStatus]string{backend.HealthStatusOk: "ok", backend.HealthStatusError: "error"}[c.status]
			assert.Equal(t, 1.0, testutil.ToFloat64(d.metrics.healthChecks.WithLabelValues(outcome)))
			if name == "settings" {
				return
			}
			var details struct {
				VerboseMessage string
				Findings       []diagnose.Finding
			}
			require.NoError(t, json.Unmarshal(got.JSONDetails, &details))
			assert.Contains(t, details.VerboseMessage, c.findings[0].Stage+": ok: "+c.findings[0].Detail)
			assert.Equal(t, c.findings, details.Findings[:len(c.findings)])
		})
	}
}
