package executor

import (
	"context"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// analytics returns the hourly statistics of fleets. The hour that contains the start of the range belongs to it.
func (x *execution) analytics(ctx context.Context, q *query.Analytics) error {
	from, to := q.From.Truncate(time.Hour), q.To
	days := x.days(from, to, x.settings.MaxPartitions)
	fleets, err := x.plannedFleets(ctx, &q.Common, len(days))
	if err != nil {
		return err
	}
	parts, err := forEachFleet(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.AnalyticsRow, error) {
		if !query.MatchFleet(q.Filters, fleet) {
			return nil, nil
		}
		hours, err := forEach(ctx, concurrentPartitions, days, func(ctx context.Context, day cassandra.Day) ([]cassandra.AnalyticsRow, error) {
			return x.reader.Hours(ctx, fleet, day)
		})
		return slices.DeleteFunc(slices.Concat(hours...), func(h cassandra.AnalyticsRow) bool { return h.Start().Before(from) || h.Start().After(to) }), err
	})
	if err != nil {
		return err
	}
	if q.Format == query.FormatTable {
		x.Frames = data.Frames{frames.HourTable(limitRows(x, slices.Concat(parts...), &q.Common, "Only %d of %d hours: the row limit."))}
		return nil
	}
	most := q.RowLimit(x.settings.MaxRows)
	series := make([]frames.FleetHours, len(fleets))
	for i, hours := range parts {
		if len(hours) > most {
			x.truncated("Only the newest %d of %d hours of fleet %s: the row limit.", most, len(hours), fleets[i])
			hours = hours[len(hours)-most:]
		}
		series[i] = frames.FleetHours{Fleet: fleets[i], Hours: hours}
	}
	if x.Frames = frames.HourSeries(series, q.SelectedFields()); len(x.Frames) == 0 {
		x.Frames = data.Frames{frames.NoSeries()}
	}
	return nil
}
