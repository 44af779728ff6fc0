// Package plugin is the Grafana data source. It implements queries, health checks, resources and live streams.
package plugin

import (
	"context"
	"io"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/grafana/grafana-plugin-sdk-go/backend/resource/httpadapter"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/diagnose"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/executor"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
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
	memory      *memory.Budget
	metrics     *Metrics
	diagnose    func(context.Context) []diagnose.Finding
	now         func() time.Time

	disposed <-chan struct{}
	dispose  context.CancelFunc
}

var (
	_ backend.QueryDataHandler      = (*Datasource)(nil)
	_ backend.CheckHealthHandler    = (*Datasource)(nil)
	_ backend.StreamHandler         = (*Datasource)(nil)
	_ instancemgmt.InstanceDisposer = (*Datasource)(nil)
)

// GarbagePercent is how much garbage the runtime may leave, in percent of the memory in use. The default of 100 would double
// the memory that queries hold.
const GarbagePercent = 50

// Factory returns the function by which Grafana creates data sources. Invalid settings do not fail the creation: queries
// and health checks return the error, where users see it.
func Factory(reg prometheus.Registerer, m *Metrics) func(context.Context, backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	return func(_ context.Context, source backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
		s, err := settings.Parse(source)
		logger := driverLogger(source.UID)
		labels := prometheus.Labels{"datasource": source.UID, "generation": source.Updated.UTC().Format("20060102T150405")}
		driverReg := prometheus.WrapRegistererWith(labels, prometheus.WrapRegistererWithPrefix("fleet_datasource_", reg))
		open := func(ctx context.Context) (reader.Store, error) {
			return cassandra.Open(ctx, s.Cluster, logger, driverReg)
		}
		return newDatasource(frames.Links{UID: source.UID, Name: source.Name}, s, err, open, diagnosing(s.Cluster, logger, s.Access), m, time.Now)
	}
}

// diagnosing returns the diagnosis of a health check. It reports on the allowed fleets only.
func diagnosing(cfg cassandra.Config, logger logrus.FieldLogger, access settings.Access) func(context.Context) []diagnose.Finding {
	return func(ctx context.Context) []diagnose.Finding {
		return diagnose.Run(ctx, cfg, logger, access.Fleets()...)
	}
}

// newDatasource makes a data source, which connects to the cluster with open on its first read.
func newDatasource(links frames.Links, s *settings.Settings, settingsErr error, open func(context.Context) (reader.Store, error),
	diagnose func(context.Context) []diagnose.Finding, m *Metrics, now func() time.Time) (*Datasource, error) {
	budget := memory.NewBudget(s.QueryBytes, m.memory)
	r, err := reader.New(s, budget, m.cacheRequests, open, now)
	if err != nil {
		return nil, err
	}
	d := &Datasource{settings: s, settingsErr: settingsErr, reader: r, executor: executor.New(s, r, links, now), memory: budget, metrics: m, diagnose: diagnose, now: now}
	disposed, dispose := context.WithCancel(context.Background())
	d.disposed, d.dispose = disposed.Done(), dispose
	d.CallResourceHandler = httpadapter.New(d.routes())
	return d, nil
}

// openAccount opens the account of a request, and returns a context whose reads take their memory from it. It waits at most
// for the query timeout.
func (d *Datasource) openAccount(ctx context.Context) (context.Context, *memory.Account, error) {
	waiting, cancel := context.WithTimeout(ctx, d.settings.QueryTimeout)
	defer cancel()
	account, err := d.memory.Open(waiting)
	return memory.With(ctx, account), account, err
}

// closeAfter closes the account of a request when its context ends. Call it when the handler returns: the SDK then encodes the
// response, sends it, and ends the context.
func closeAfter(ctx context.Context, account *memory.Account) { context.AfterFunc(ctx, account.Close) }

// Dispose ends the streams and closes the session. Grafana calls it once a newer data source has taken over.
func (d *Datasource) Dispose() {
	d.dispose()
	d.reader.Close()
}

// driverLogger writes the log of package cassandra to the log of Grafana.
func driverLogger(uid string) logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.SetLevel(logrus.DebugLevel)
	logger.AddHook(&grafanaLog{backend.Logger.With("datasource", uid)})
	return logger
}

type grafanaLog struct{ logger log.Logger }

// Levels implements logrus.Hook.
func (g *grafanaLog) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (g *grafanaLog) Fire(e *logrus.Entry) error {
	args := make([]any, 0, 2*len(e.Data))
	for key, value := range e.Data {
		args = append(args, key, value)
	}
	switch e.Level {
	case logrus.TraceLevel, logrus.DebugLevel:
		g.logger.Debug(e.Message, args...)
	case logrus.InfoLevel:
		g.logger.Info(e.Message, args...)
	case logrus.WarnLevel:
		g.logger.Warn(e.Message, args...)
	default:
		g.logger.Error(e.Message, args...)
	}
	return nil
}
