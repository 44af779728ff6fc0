package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// get calls a resource and returns its status and JSON body.
func get(t *testing.T, d *Datasource, url string) (int, string) {
	t.Helper()
	var response *backend.CallResourceResponse
	path, _, _ := strings.Cut(url, "?")
	ctx, answered := context.WithCancel(t.Context())
	defer answered() // it returns its memory
	err := d.CallResource(ctx, &backend.CallResourceRequest{Method: "GET", Path: path, URL: url},
		backend.CallResourceResponseSenderFunc(func(r *backend.CallResourceResponse) error { response = r; return nil }))
	require.NoError(t, err)
	require.True(t, json.Valid(response.Body), "%s", response.Body)
	return response.Status, string(response.Body)
}

func TestResources(t *testing.T) {
	d := newTestDatasource(t, &fakeStore{}, map[string]any{})
	for url, want := range map[string]string{
		"fleets":                              `["north","south"]`,
		"fleets?prefix=so":                    `["south"]`,
		"fleets?limit=1":                      `["north"]`,
		"zones?fleet=south":                   `["depot"]`,
		"filter-values?key=status":            `[{"text":"moving"},{"text":"stopped"},{"text":"stale"},{"text":"offline"}]`,
		"filter-values?key=speed_kmh":         `[]`,
		"filter-values?key=fleet_id&prefix=n": `[{"text":"north"}]`,
		"schema":                              `{"keyspace":"fleet_iot","tables":[{"name":"t","partitionKey":["k"],"clusteringKey":null,"columns":null}]}`,
		"geofences?fleet=north&fleet=":        `{"type":"FeatureCollection","features":[{"type":"Feature","id":"north/depot","geometry":{"type":"Point","coordinates":[9,52]},"properties":{"fleet_id":"north","name":"depot","kind":""}}]}`,
	} {
		status, body := get(t, d, url)
		assert.Equal(t, 200, status, url)
		assert.JSONEq(t, want, body, url)
	}
	_, keys := get(t, d, "filter-keys")
	assert.Contains(t, keys, `{"text":"age_s"}`)
}

func TestResourceErrors(t *testing.T) {
	restricted := map[string]any{"allowedFleets": "north"}
	for name, c := range map[string]struct {
		store    *fakeStore
		settings map[string]any
		url      string
		status   int
		want     string
	}{
		"unknown":   {&fakeStore{}, restricted, "secrets", 404, "no resource GET /secrets"},
		"limit":     {&fakeStore{}, restricted, "devices?limit=x", 400, `limit \"x\": give a number above 0`},
		"name":      {&fakeStore{}, restricted, "devices?fleet=a%20b", 400, `fleet \"a b\": a name has`},
		"map":       {&fakeStore{}, restricted, "geofences?fleet=a%20b", 400, `fleet \"a b\": a name has`},
		"forbidden": {&fakeStore{}, restricted, "devices?fleet=south", 403, "not allowed for this data source"},
		"geofences": {&fakeStore{}, restricted, "geofences?fleet=south", 403, "not allowed for this data source"},
		"settings":  {&fakeStore{}, map[string]any{"maxRows": 0}, "fleets", 400, "Rows per query 0"},
		"bug":       {&fakeStore{err: errors.New("boom")}, map[string]any{}, "fleets", 500, "boom"},
	} {
		status, body := get(t, newTestDatasource(t, c.store, c.settings), c.url)
		assert.Equal(t, c.status, status, name)
		assert.Contains(t, body, c.want, name)
	}
}
