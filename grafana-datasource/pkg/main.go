// Command gpx_fleet_cassandra is the backend of the Fleet Tracing data source. Grafana starts it.
package main

import (
	"os"
	"runtime/debug"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/plugin"
)

const id = "fleettracing-cassandra-datasource"

// maxRequestBytes bounds a request of Grafana, which the plugin decodes before it can count its memory.
const maxRequestBytes = 4 << 20

func main() {
	debug.SetGCPercent(plugin.GarbagePercent)
	opts := datasource.ManageOpts{GRPCSettings: backend.GRPCSettings{MaxReceiveMsgSize: maxRequestBytes}}
	// Grafana collects the metrics of the default registry.
	reg := prometheus.DefaultRegisterer
	if err := datasource.Manage(id, plugin.Factory(reg, plugin.NewMetrics(reg)), opts); err != nil {
		log.DefaultLogger.Error("plugin exited", "error", err)
		os.Exit(1)
	}
}
