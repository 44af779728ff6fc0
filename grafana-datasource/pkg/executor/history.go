package executor

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// alerts returns the alerts of fleets, newest first.
func (x *execution) alerts(ctx context.Context, q *query.Alerts) error {
	severities := keep(cassandra.Severities, func(s *string) bool { return allows(q.Severities, *s) })
	days := x.days(q.From, q.To, x.settings.MaxPartitions/len(severities))
	from := q.From
	if first := days[0].Time(); first.After(from) {
		from = first
	}
	// One row more than the limit shows that there are others. Counts and filters need every alert up to the read limit.
	most := q.RowLimit(x.settings.MaxRows)
	limit := most + 1
	counts := q.Format == query.FormatTimeSeries || q.Format == query.FormatNumeric
	if counts {
		most = x.settings.MaxRowsRead
	}
	if counts || len(q.Devices)+len(q.AlertTypes)+len(q.Filters) > 0 || q.Resolved == query.ResolvedOpen || q.Resolved == query.ResolvedClosed {
		limit = x.settings.MaxRowsRead + 1
	}
	fleets, parts, err := forEachFleet(ctx, x, &q.Common, len(days)*len(severities), func(ctx context.Context, fleet string) ([]cassandra.Alert, error) {
		rows, err := x.reader.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: from, To: q.To, Severities: severities, Limit: limit})
		return keep(rows, func(a *cassandra.Alert) bool {
			return allows(q.Devices, a.DeviceID) && allows(q.AlertTypes, a.Type) && query.Match(q.Filters, alertColumns, a) &&
				(q.Resolved != query.ResolvedOpen || !a.Resolved) && (q.Resolved != query.ResolvedClosed || a.Resolved)
		}), err
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
		return x.show(frames.AlertLogs(rows))
	case query.FormatAnnotations:
		return x.show(frames.AlertAnnotations(rows))
	case query.FormatTimeSeries:
		return x.show(frames.AlertSeries(rows, severities, q.From, q.To, q.Interval, q.MaxDataPoints)...)
	case query.FormatNumeric:
		return x.show(frames.AlertCounts(rows, fleets, severities))
	default:
		return x.show(frames.Alerts(rows, x.links))
	}
}

var alertColumns = query.Columns[cassandra.Alert]{
	"device_id":  func(a *cassandra.Alert) query.Cell { return query.Text(a.DeviceID) },
	"fleet_id":   func(a *cassandra.Alert) query.Cell { return query.Text(a.FleetID) },
	"severity":   func(a *cassandra.Alert) query.Cell { return query.Text(a.Severity) },
	"alert_type": func(a *cassandra.Alert) query.Cell { return query.Text(a.Type) },
}

// analytics returns the hourly statistics of fleets. The hour that contains the start of the range belongs to it.
func (x *execution) analytics(ctx context.Context, q *query.Analytics) error {
	from, to := q.From.Truncate(time.Hour), q.To
	days := x.days(from, to, x.settings.MaxPartitions)
	fleets, parts, err := forEachFleet(ctx, x, &q.Common, len(days), func(ctx context.Context, fleet string) ([]cassandra.AnalyticsRow, error) {
		if !query.MatchFleet(q.Filters, fleet) {
			return nil, nil
		}
		hours, err := forEach(ctx, concurrentPartitions, days, func(ctx context.Context, day cassandra.Day) ([]cassandra.AnalyticsRow, error) {
			return x.reader.Hours(ctx, fleet, day)
		})
		return keep(slices.Concat(hours...), func(h *cassandra.AnalyticsRow) bool { return !h.Start().Before(from) && !h.Start().After(to) }), err
	})
	if err != nil {
		return err
	}
	if q.Format == query.FormatTable {
		return x.show(frames.HourTable(limitRows(x, slices.Concat(parts...), &q.Common, "Only %d of %d hours: the row limit.")))
	}
	most := q.RowLimit(x.settings.MaxRows)
	for i, hours := range parts {
		if len(hours) > most {
			x.truncated("Only the newest %d of %d hours of fleet %s: the row limit.", most, len(hours), fleets[i])
			parts[i] = hours[len(hours)-most:]
		}
	}
	return x.show(frames.HourSeries(fleets, parts, query.Selected(q.Fields, query.AnalyticsFields))...)
}
