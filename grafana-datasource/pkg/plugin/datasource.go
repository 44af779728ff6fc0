// Package plugin is the Grafana data source. It implements queries, health checks, resources and live streams.
package plugin

import (
	"context"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/backend/resource/httpadapter"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/live"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// Datasource is one configured data source. Grafana creates a new one whenever the settings change.
type Datasource struct {
	backend.CallResourceHandler

	settings    *settings.Settings
	settingsErr error // invalid settings; every request returns it
	reader      *reader.Reader
	executor    *executor.Executor
	live        *live.Broadcaster
	metrics     *Metrics
	diagnose    func(context.Context) []diagnose.Finding
	now         func() time.Time
}

var (
	_ backend.QueryDataHandler      = (*Datasource)(nil)
	_ backend.CheckHealthHandler    = (*Datasource)(nil)
	_ backend.StreamHandler         = (*Datasource)(nil)
	_ instancemgmt.InstanceDisposer = (*Datasource)(nil)
)

// Factory returns the function by which Grafana creates data sources. Invalid settings do not fail the creation: queries
// and health checks return the error, where users see it.
func Factory(reg prometheus.Registerer, m *Metrics) func(context.Context, backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	return func(_ context.Context, source backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
		s, err := settings.Parse(source)
		logger := driverLogger(source.UID)
		labels := prometheus.Labels{"datasource": source.UID, "generation": source.Updated.UTC().Format("20060102T150405")}
		driverReg := prometheus.WrapRegistererWith(labels, prometheus.WrapRegistererWithPrefix("fleet_datasource_", reg))
		cluster := cluster{
			open: func(ctx context.Context) (reader.Store, error) {
				return cassandra.Open(ctx, s.Cluster, logger, driverReg)
			},
			diagnose: func(ctx context.Context) []diagnose.Finding { return diagnose.Run(ctx, s.Cluster, logger) },
		}
		return newDatasource(frames.Links{UID: source.UID, Name: source.Name}, s, err, cluster, m, time.Now)
	}
}

// cluster is the access to the Cassandra cluster of a data source.
type cluster struct {
	open     func(context.Context) (reader.Store, error)
	diagnose func(context.Context) []diagnose.Finding
}

// newDatasource makes a data source, which connects to the cluster on its first read.
func newDatasource(links frames.Links, s *settings.Settings, settingsErr error, c cluster, m *Metrics, now func() time.Time) (*Datasource, error) {
	r, err := reader.New(s, m.cache, c.open, now)
	if err != nil {
		return nil, err
	}
	channel := func(q *query.Latest, fleet string) (string, bool) { return live.Channel(links.UID, fleet, q) }
	d := &Datasource{
		settings: s, settingsErr: settingsErr, reader: r, metrics: m, diagnose: c.diagnose, now: now,
		executor: executor.New(s, r, links, channel, now),
		live:     live.NewBroadcaster(r.Latest, s.LiveInterval, s.QueryTimeout),
	}
	d.CallResourceHandler = httpadapter.New(d.routes())
	return d, nil
}

// Dispose ends the streams and closes the session. Grafana calls it once a newer data source has taken over.
func (d *Datasource) Dispose() {
	d.live.Close()
	d.reader.Close()
}
