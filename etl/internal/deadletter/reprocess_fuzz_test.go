package deadletter

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzReprocess checks that reprocessing parses a raw text as the API did: into the same record, or with a rejection for
// the same reason.
func FuzzReprocess(f *testing.F) {
	for _, raw := range []string{
		`{"device_id":"v1","fleet_id":"wuxi","timestamp":1795000000000,"lat":31.5,"lon":120.25,"extra":[1]}`,
		`{"Device_ID":"v1","FLEET_ID":"wuxi","TimeStamp":"2026-11-18 10:26:40","LAT":1,"lat":null,"Lat":2,"lon":3}`,
		`{"device_id":"v1","device_id":null,"lat":[1]}`, `{"\u006cat":1,"\u212aon":2}`, "{", "id=1&lat=2", "null", "",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		s, err := NewReprocessor(ReprocessOptions{})
		require.NoError(t, err)
		want, rejection := telemetry.ParseJSON([]byte(raw), "")
		text, why := s.text(&Entry{Raw: raw})
		if why != "" {
			require.NotNil(t, rejection, "the API could parse it: %s", why)
			return
		}
		got, again := telemetry.ParseJSON(text, "")
		if rejection != nil {
			require.True(t, again != nil && (again.Reason == rejection.Reason || rejection.Reason == telemetry.TooLarge), "%v, %v", rejection, again)
			return
		}
		require.Nil(t, again, "%s", text)
		require.Equal(t, want, got)
	})
}
