package executor

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// alerts returns the alerts of fleets, newest first.
func (x *execution) alerts(ctx context.Context, q *query.Alerts) error {
	anySeverity, anyDevice, anyType := anyOf(q.Severities), anyOf(q.Devices), anyOf(q.AlertTypes)
	severities := keep(cassandra.Severities, func(s *string) bool { return anySeverity(*s) })
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
		return x.reader.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: from, To: q.To, Severities: severities, Limit: limit})
	})
	if err != nil {
		return err
	}
	rows, err := gather(ctx, parts, func(a *cassandra.Alert) bool {
		return anyDevice(a.DeviceID) && anyType(a.Type) && query.Match(q.Filters, alertColumns, a) &&
			(q.Resolved != query.ResolvedOpen || !a.Resolved) && (q.Resolved != query.ResolvedClosed || a.Resolved)
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(rows, func(a, b cassandra.Alert) int {
		return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.FleetID, b.FleetID), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type))
	})
	if len(rows) > most {
		x.truncated("Only the newest %d alerts, starting %s: the row limit.", most, rows[most-1].Opened().Format(time.RFC3339))
		rows = rows[:most]
	}
	switch q.Format {
	case query.FormatLogs:
		frame, err := frames.AlertLogs(ctx, rows)
		if err != nil {
			return err
		}
		return x.show(frame)
	case query.FormatTimeSeries:
		if err := takeCells(ctx, q.MaxDataPoints, 1+len(severities)); err != nil {
			return err
		}
		return x.show(frames.AlertSeries(rows, severities, from, q.To, q.Interval, q.MaxDataPoints)...)
	case query.FormatNumeric:
		return x.show(frames.AlertCounts(rows, fleets, severities))
	}
	if err := takeCells(ctx, len(rows), alertFields); err != nil {
		return err
	}
	if q.Format == query.FormatAnnotations {
		return x.show(frames.AlertAnnotations(rows))
	}
	return x.show(frames.Alerts(rows, x.links))
}

// alertFields is the number of fields of a table of alerts. Annotations have fewer.
const alertFields = 7

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
	n := 0
	for _, hours := range parts {
		n += len(hours)
	}
	fields := query.Selected(q.Fields, query.AnalyticsFields)
	if err := memory.Take(ctx, 2*n*len(query.AnalyticsFields)*memory.CellBytes+len(fleets)*len(fields)*memory.SeriesBytes); err != nil {
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
	return x.show(frames.HourSeries(fleets, parts, fields)...)
}
