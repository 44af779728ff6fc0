// Package grafana holds what Grafana is provisioned with: the data sources, the folders and the dashboards. The JSON of
// the dashboards is what Grafana reads; this package reads it too, so that tests can hold it to the rules of its own
// and run every query in it against real parts.
package grafana
