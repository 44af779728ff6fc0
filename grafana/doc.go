// Package grafana has the provisioning of Grafana: data sources, folders and dashboards. It loads the dashboards' JSON, so that
// tests can check it and run every query against real servers.
package grafana
