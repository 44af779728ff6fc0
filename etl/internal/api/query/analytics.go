package query

import (
	"context"
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// hourItem is the figures of a fleet in one hour.
type hourItem struct {
	FleetID            string   `json:"fleet_id"`
	Hour               string   `json:"hour"` // its first instant
	TotalDistanceKm    float64  `json:"total_distance_km"`
	AvgSpeedKmh        *float64 `json:"avg_speed_kmh,omitempty"`
	AlertsCount        int      `json:"alerts_count"`
	ActiveDevicesCount int      `json:"active_devices_count"`
}

const msPerHour = 60 * 60 * 1000

func (a *API) analytics() list[hourItem] {
	return list[hourItem]{
		route: routeAnalytics, idField: fieldFleet, keep: keepRange(keepList),
		span:    &span{back: 7 * 24 * time.Hour, longest: (cassandra.MaxDays - 1) * 24 * time.Hour},
		columns: []string{"fleet_id", "hour", "total_distance_km", "avg_speed_kmh", "alerts_count", "active_devices_count"},
		row: func(h hourItem) []string {
			return []string{
				h.FleetID, h.Hour, formatFloat(&h.TotalDistanceKm), formatFloat(h.AvgSpeedKmh),
				strconv.Itoa(h.AlertsCount), strconv.Itoa(h.ActiveDevicesCount),
			}
		},
		page: analyticsPage,
	}
}

// analyticsPage reads the hours of which a part lies in the range, oldest first. The position is the last hour.
func analyticsPage(ctx context.Context, store Store, q *query) (items []hourItem, position string, err error) {
	from := q.from - q.from%msPerHour
	if q.position != "" {
		last, err := strconv.ParseInt(q.position, 10, 64)
		if err != nil || last < 0 || last > latestInstant {
			return nil, "", badPage(q.page)
		}
		from = max(from, last+msPerHour)
	}
	// No more days at once than a full page needs.
	days := cassandra.Day(min(q.limit/24+2, cassandra.MaxDays))
	end := cassandra.DayOf(q.to)
	for first := cassandra.DayOf(from); first <= end; first += days {
		hours, err := store.Analytics(ctx, q.id, first, min(first+days-1, end))
		if err != nil {
			return nil, "", err
		}
		for _, h := range hours {
			start := h.Start.UnixMilli()
			if start < from || start > q.to {
				continue
			}
			if len(items) == q.limit {
				return items, position, nil
			}
			position = strconv.FormatInt(start, 10)
			items = append(items, hourItem{h.FleetID, formatTime(h.Start), h.TotalDistanceKm, h.AvgSpeedKmh, h.AlertsCount, h.ActiveDevicesCount})
		}
	}
	return items, "", nil
}
