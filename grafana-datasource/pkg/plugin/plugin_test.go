package plugin

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

var now = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// fakeStore has two fleets with one vehicle each. The methods that it does not define panic.
type fakeStore struct {
	reader.Store
	err   error
	reads atomic.Int32 // of latest records
}

func (f *fakeStore) Fleets(context.Context) ([]string, error) {
	return []string{"north", "south"}, f.err
}

func (f *fakeStore) LatestOfFleet(_ context.Context, fleet string) ([]cassandra.Telemetry, error) {
	f.reads.Add(1)
	return []cassandra.Telemetry{{DeviceID: fleet + "-1", FleetID: fleet, Ts: now, Lat: 52, Lon: 9}}, f.err
}

func (f *fakeStore) Schema(context.Context) ([]cassandra.Table, error) {
	return []cassandra.Table{{Name: "t", PartitionKey: []string{"k"}}}, f.err
}

func (f *fakeStore) Geofences(_ context.Context, fleet string) ([]cassandra.Geofence, error) {
	return []cassandra.Geofence{{FleetID: fleet, Name: "depot", Geometry: `{"type":"Point","coordinates":[9,52]}`}}, f.err
}

func (f *fakeStore) Close() {}

// newTestDatasource makes a data source on a fake store.
func newTestDatasource(t *testing.T, store reader.Store, values map[string]any, findings ...diagnose.Finding) *Datasource {
	t.Helper()
	if _, ok := values["contactPoints"]; !ok {
		values["contactPoints"] = "127.0.0.1"
	}
	text, err := json.Marshal(values)
	require.NoError(t, err)
	s, settingsErr := settings.Parse(backend.DataSourceInstanceSettings{JSONData: text})
	open := func(context.Context) (reader.Store, error) { return store, nil }
	diagnose := func(context.Context) []diagnose.Finding { return findings }
	d, err := newDatasource(frames.Links{UID: "uid", Name: "Fleet"}, s, settingsErr, open, diagnose, NewMetrics(prometheus.NewRegistry()), func() time.Time { return now })
	require.NoError(t, err)
	t.Cleanup(d.Dispose)
	return d
}

func dataQuery(refID, text string) backend.DataQuery {
	return backend.DataQuery{RefID: refID, JSON: json.RawMessage(text), TimeRange: backend.TimeRange{From: now.Add(-time.Hour), To: now}}
}

// run runs queries, by reference ID, in one request.
func run(t *testing.T, d *Datasource, queries map[string]string) backend.Responses {
	t.Helper()
	req := &backend.QueryDataRequest{}
	for refID, text := range queries {
		req.Queries = append(req.Queries, dataQuery(refID, text))
	}
	response, err := d.QueryData(t.Context(), req)
	require.NoError(t, err)
	return response.Responses
}
