// Command gpx_fleet_cassandra is the backend of the Fleet Tracing data source. Grafana starts it.
package main

import (
	"os"

	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/plugin"
)

const id = "fleettracing-cassandra-datasource"

func main() {
	// Grafana collects the metrics of the default registry.
	reg := prometheus.DefaultRegisterer
	if err := datasource.Manage(id, plugin.Factory(reg, plugin.NewMetrics(reg)), datasource.ManageOpts{}); err != nil {
		log.DefaultLogger.Error("plugin exited", "error", err)
		os.Exit(1)
	}
}
