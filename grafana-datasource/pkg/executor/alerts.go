package executor

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// alerts returns the alerts of fleets, newest first.
func (x *execution) alerts(ctx context.Context, q *query.Alerts) error {
	severities := slices.DeleteFunc(slices.Clone(cassandra.Severities), func(s string) bool { return !allows(q.Severities, s) })
	days := x.days(q.From, q.To, x.settings.MaxPartitions/len(severities))
	fleets, err := x.plannedFleets(ctx, &q.Common, len(days)*len(severities))
	if err != nil {
		return err
	}
	// One row more than the limit shows that there are others. Counts and filters need every alert up to the read limit.
	most := q.RowLimit(x.settings.MaxRows)
	limit := most + 1
	counts := q.Format == query.FormatTimeSeries || q.Format == query.FormatNumeric
	if counts {
		most = x.settings.MaxRowsRead
	}
	if counts || filtersRows(q) {
		limit = x.settings.MaxRowsRead + 1
	}
	from := q.From
	if first := days[0].Time(); first.After(from) {
		from = first
	}
	parts, err := forEachFleet(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Alert, error) {
		rows, err := x.reader.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: from, To: q.To, Severities: severities, Limit: limit})
		return slices.DeleteFunc(slices.Clone(rows), func(a cassandra.Alert) bool { return !selectsAlert(q, &a) }), err
	})
	if err != nil {
		return err
	}
	rows := slices.Concat(parts...)
	slices.SortStableFunc(rows, func(a, b cassandra.Alert) int {
		return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.FleetID, b.FleetID), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type))
	})
	if len(rows) > most {
		x.truncated("Only the newest %d alerts, starting %s: the row limit.", most, rows[most-1].Opened().Format(time.RFC3339))
		rows = rows[:most]
	}
	switch q.Format {
	case query.FormatLogs:
		x.Frames = data.Frames{frames.AlertLogs(rows)}
	case query.FormatAnnotations:
		x.Frames = data.Frames{frames.AlertAnnotations(rows)}
	case query.FormatTimeSeries:
		x.Frames = frames.AlertSeries(rows, severities, q.From, q.To, q.Interval, q.MaxDataPoints)
	case query.FormatNumeric:
		x.Frames = data.Frames{frames.AlertCounts(rows, fleets, severities)}
	default:
		x.Frames = data.Frames{frames.Alerts(rows, x.links)}
	}
	return nil
}

// filtersRows reports whether a query leaves out some rows of the partitions that it reads.
func filtersRows(q *query.Alerts) bool {
	return len(q.Devices)+len(q.AlertTypes)+len(q.Filters) > 0 || q.Resolved == query.ResolvedOpen || q.Resolved == query.ResolvedClosed
}

func selectsAlert(q *query.Alerts, a *cassandra.Alert) bool {
	if !allows(q.Devices, a.DeviceID) || !allows(q.AlertTypes, a.Type) ||
		q.Resolved == query.ResolvedOpen && a.Resolved || q.Resolved == query.ResolvedClosed && !a.Resolved {
		return false
	}
	return query.Match(q.Filters, func(key string) (query.Cell, bool) {
		switch key {
		case "device_id":
			return query.Text(a.DeviceID), true
		case "fleet_id":
			return query.Text(a.FleetID), true
		case "severity":
			return query.Text(a.Severity), true
		case "alert_type":
			return query.Text(a.Type), true
		}
		return query.Cell{}, false
	})
}
