package settings

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func parse(t *testing.T, values map[string]any, secure map[string]string) (*Settings, error) {
	t.Helper()
	text, err := json.Marshal(values)
	require.NoError(t, err)
	return Parse(backend.DataSourceInstanceSettings{JSONData: text, DecryptedSecureJSONData: secure})
}

func TestParseDefaults(t *testing.T) {
	s, err := parse(t, map[string]any{"contactPoints": "a, b:9043\nc"}, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b:9043", "c"}, s.Cluster.Hosts)
	assert.Equal(t, "fleet_iot", s.Cluster.Keyspace)
	assert.Equal(t, 5*time.Second, s.Cluster.ConnectTimeout)
	assert.Equal(t, 2500*time.Millisecond, s.Cluster.Timeout, "a quarter of the query timeout")
	assert.Equal(t, 32, s.Cluster.ReadsInFlight)
	assert.Equal(t, 16, s.Cluster.Fanout)
	assert.Nil(t, s.Cluster.TLS)
	assert.Equal(t, 10*time.Second, s.QueryTimeout)
	assert.Equal(t, []int{2000, 100_000, 2_000_000}, []int{s.MaxPartitions, s.MaxRows, s.MaxRowsRead})
	assert.Equal(t, uint64(64<<20), s.CacheBytes)
	assert.Equal(t, 192<<20, s.QueryBytes)
	assert.Equal(t, 3.0, s.MovingAboveKmh)
	assert.True(t, s.AllowRaw)
	assert.False(t, s.AllowFiltering)
	assert.False(t, s.Access.Restricted())
}

func TestParseValues(t *testing.T) {
	s, err := parse(t, map[string]any{
		"contactPoints": "a", "keyspace": " other ", "localDatacenter": "dc2", "consistency": "TWO", "username": "u", "queryTimeout": "200ms",
		"maxConcurrency": 1, "latestCache": "0s", "movingAboveKmh": 0, "allowedFleets": "b, a,b", "allowFiltering": true, "allowRaw": false,
	}, map[string]string{"password": "secret"})
	require.NoError(t, err)
	assert.Equal(t, "other", s.Cluster.Keyspace)
	assert.Equal(t, []string{"dc2", "TWO", "u", "secret"}, []string{s.Cluster.LocalDC, s.Cluster.ReadConsistency, s.Cluster.Username, s.Cluster.Password})
	assert.Equal(t, 100*time.Millisecond, s.Cluster.Timeout, "at least 100 ms")
	assert.Equal(t, 1, s.Cluster.Fanout)
	assert.Zero(t, s.LatestCache)
	assert.Zero(t, s.MovingAboveKmh)
	assert.Equal(t, []string{"a", "b"}, s.Access.Fleets())
	assert.True(t, s.AllowFiltering)
	assert.False(t, s.AllowRaw)
}

func TestParseNamesEveryInvalidSetting(t *testing.T) {
	_, err := parse(t, map[string]any{
		"queryTimeout": "soon", "connectTimeout": "1ms", "maxConcurrency": 0, "maxPartitions": -1, "maxRows": 2_000_000, "cacheMegabytes": 0, "queryMegabytes": 20_000,
		"staleAfter": "1h", "offlineAfter": "1m", "movingAboveKmh": -1, "liveInterval": "1ms", "allowedFleets": "good b@d",
		"tls": true,
	}, map[string]string{"tlsCACert": "not PEM"})
	require.Error(t, err)
	for _, want := range []string{
		`Query timeout "soon": give a duration of at least 100ms, for example 10s`, `Connect timeout "1ms"`, "Partitions at once 0: give a number from 1 to 1000",
		"Partitions per query -1", "Rows per query 2000000: give a number from 1 to 1000000", "Memory (MB) 0", "Query memory (MB) 20000: give a number from 1 to 16384", "Offline after 1m0s: give at least Stale after, which is 1h0m0s",
		"Moving above -1: give a speed of 0 km/h or more", `Live interval "1ms"`, `Allowed fleets "b@d": ` + NameRule, `Contact points "": name at least one`,
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.NotContains(t, err.Error(), `"good"`)
	assert.Len(t, strings.Split(err.Error(), "\n"), 13, "one line for each setting, TLS included: %v", err)
}

func TestParseRejectsOtherJSON(t *testing.T) {
	s, err := Parse(backend.DataSourceInstanceSettings{JSONData: []byte(`{"maxRows":"many"}`)})
	require.ErrorContains(t, err, "settings of the data source: json: cannot unmarshal")
	require.NotNil(t, s)
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"fleet-001": true, "A.b_c:d-9": true, strings.Repeat("x", 128): true,
		"": false, "a b": false, "a/b": false, "ä": false, strings.Repeat("x", 129): false,
	} {
		assert.Equal(t, want, ValidName(name), name)
	}
}

func TestAccess(t *testing.T) {
	var all Access
	require.NoError(t, all.Check([]string{"any"}))
	assert.True(t, all.Allows("any"))
	assert.Empty(t, all.Fleets())

	some := NewAccess("north", "middle", "north")
	assert.True(t, some.Restricted())
	assert.Equal(t, []string{"middle", "north"}, some.Fleets())
	require.NoError(t, some.Check(nil))
	require.NoError(t, some.Check([]string{"north", "middle"}))
	err := some.Check([]string{"north", "south"})
	require.EqualError(t, err, `fleet "south": not allowed for this data source (allowed: middle, north)`)
	var forbidden *ForbiddenError
	assert.ErrorAs(t, err, &forbidden)
	some.Fleets()[0] = "south"
	assert.False(t, some.Allows("south"), "callers cannot change the set")
}
