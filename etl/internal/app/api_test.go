package app

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

func TestDuplicateDoesNotRevealRecordsOfAnotherFleet(t *testing.T) {
	r := recent{deduplicator: validate.NewDeduplicator(10)}
	record := func(fleet string, lat float64) *telemetry.Record {
		return &telemetry.Record{DeviceID: "truck-1", FleetID: fleet, TimeMs: 1_772_366_400_000, Lat: lat, Lon: 120.25}
	}
	require.Equal(t, telemetry.New, r.see(record("a", 1)))
	require.Equal(t, telemetry.New, r.see(record("b", 1)))
	require.Equal(t, telemetry.New, r.see(record("c", 2)))
	require.Equal(t, telemetry.Duplicate, r.see(record("a", 1)))
	require.Equal(t, telemetry.Conflict, r.see(record("b", 2)))
}

// An invalid tokens file shows in the metric of FleetConfigReloadFailed, whatever the mode.
func TestModesOfTokens(t *testing.T) {
	for mode, known := range map[string]bool{"keep": true, tokensStrict: false} {
		for name, spoil := range map[string]func(path string) error{
			"emptied":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
			"removed":    os.Remove,
			"unreadable": func(path string) error { _ = os.Remove(path); return os.Mkdir(path, 0o700) },
			"mistyped":   func(path string) error { return os.WriteFile(path, []byte("wuxi 123"), 0o600) },
		} {
			t.Run(mode+", "+name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "tokens")
				token, hash := auth.NewToken()
				require.NoError(t, os.WriteFile(path, []byte("wuxi "+hash), 0o600))
				logger, _ := test.NewNullLogger()
				reg := prometheus.NewRegistry()
				a := newApp(&program{config: &config.Config{APITokens: path, APITokensMode: mode}, logger: logger, reg: reg})
				tokens, err := a.tokens()
				require.NoError(t, err)
				coordinator := reload.New(a.reloads, 0, logger, reg)
				knows := func() bool {
					_, ok := tokens.Authenticate(httptest.NewRequest(http.MethodGet, "/", nil), token)
					return ok
				}
				require.True(t, knows())
				require.NoError(t, spoil(path))
				require.Error(t, coordinator.Reload())
				require.Equal(t, known, knows())
				families, err := reg.Gather()
				require.NoError(t, err)
				for _, f := range families {
					if f.GetName() == "fleet_etl_config_last_reload_successful" {
						require.Zero(t, f.GetMetric()[0].GetGauge().GetValue())
					}
				}
				require.NoError(t, os.RemoveAll(path))
				require.NoError(t, os.WriteFile(path, []byte("wuxi "+hash), 0o600))
				require.NoError(t, coordinator.Reload())
				require.True(t, knows())
			})
		}
	}
}
