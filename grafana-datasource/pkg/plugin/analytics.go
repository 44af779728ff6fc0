package plugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// analytics answers with hourly figures of fleets. An hour belongs to the range when it begins in it, or is under way
// at its start.
func (d *Datasource) analytics(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil {
		return a, err
	}
	from, to := q.from.Truncate(time.Hour), q.to
	days := daysOf(from, to, d.settings.maxPartitions, &a)
	fleets = d.within(fleets, max(len(days), 1), &a)
	parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Hour, error) {
		hours, err := sideBySide(ctx, partsAtOnce, days, func(ctx context.Context, day cassandra.Day) ([]cassandra.Hour, error) {
			return d.reader.hours(ctx, c, fleet, day)
		})
		var kept []cassandra.Hour
		for _, h := range slices.Concat(hours...) {
			if !h.Start.Before(from) && !h.Start.After(to) && passes(q.Filters, fleetColumn(fleet)) {
				kept = append(kept, h)
			}
		}
		return kept, err
	})
	if err != nil {
		return a, err
	}
	most := q.rowLimit(&d.settings)
	if q.Format == formatTable {
		rows := slices.Concat(parts...)
		if len(rows) > most {
			a.cut("Only %d of %d hours: the limit of rows.", most, len(rows))
			rows = rows[:most]
		}
		a.frames = data.Frames{analyticsTable(rows)}
		return a, nil
	}
	fields := q.fields(analyticsFields...)
	for i, hours := range parts {
		if len(hours) > most {
			a.cut("Only the newest %d of %d hours of fleet %s: the limit of rows.", most, len(hours), fleets[i])
			hours = hours[len(hours)-most:]
		}
		for _, name := range fields {
			if frame := analyticsSeries(fleets[i], name, hours, len(fleets) > 1, len(fields) > 1); frame != nil {
				a.frames = append(a.frames, frame)
			}
		}
	}
	if len(a.frames) == 0 {
		a.frames = data.Frames{noSeries()}
	}
	return a, nil
}

func fleetColumn(fleet string) func(string) (cell, bool) {
	return func(key string) (cell, bool) { return textCell(fleet), key == "fleet_id" }
}

func figure(h *cassandra.Hour, name string) *float64 {
	var v float64
	switch name {
	case "total_distance_km":
		v = h.TotalDistanceKm
	case "avg_speed_kmh":
		return h.AvgSpeedKmh
	case "alerts_count":
		v = float64(h.AlertsCount)
	default:
		v = float64(h.ActiveDevicesCount)
	}
	return &v
}

func analyticsSeries(fleet, name string, hours []cassandra.Hour, severalFleets, severalFields bool) *data.Frame {
	if len(hours) == 0 {
		return nil
	}
	times, values := make([]time.Time, len(hours)), make([]*float64, len(hours))
	for i := range hours {
		times[i], values[i] = hours[i].Start, figure(&hours[i], name)
	}
	value := field(name, data.Labels{"fleet_id": fleet}, values)
	value.Config.DisplayName = ""
	switch title := columns[name].title; {
	case !severalFleets:
		value.Config.DisplayNameFromDS = title
	case !severalFields:
		value.Config.DisplayNameFromDS = fleet
	default:
		value.Config.DisplayNameFromDS = fmt.Sprintf("%s, %s", fleet, title)
	}
	return series(data.NewField("time", nil, times), value)
}

func analyticsTable(hours []cassandra.Hour) *data.Frame {
	times, fleets := make([]time.Time, len(hours)), make([]string, len(hours))
	figures := make([][]*float64, len(analyticsFields))
	for j := range figures {
		figures[j] = make([]*float64, len(hours))
	}
	for i := range hours {
		times[i], fleets[i] = hours[i].Start, hours[i].FleetID
		for j, name := range analyticsFields {
			figures[j][i] = figure(&hours[i], name)
		}
	}
	frame := table("analytics", data.NewField("time", nil, times), field("fleet_id", nil, fleets))
	for j, name := range analyticsFields {
		frame.Fields = append(frame.Fields, field(name, nil, figures[j]))
	}
	return frame
}

// daysOf lists the UTC days of a range, oldest first; of too many, the newest, with a cut.
func daysOf(from, to time.Time, most int, a *answer) []cassandra.Day {
	most = min(most, cassandra.MaxDays)
	first, last := cassandra.DayOf(from.UnixMilli()), cassandra.DayOf(to.UnixMilli())
	if n := int(last-first) + 1; n > most {
		first = last - cassandra.Day(most) + 1
		a.cut("Only the newest %d of %d days, from %s on: the data source reads no more at once.", most, n, first)
	}
	var days []cassandra.Day
	for day := first; day <= last; day++ {
		days = append(days, day)
	}
	return days
}
