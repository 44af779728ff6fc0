package query

import (
	"context"
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
)

// hourItem is the statistics of a fleet in one hour.
type hourItem struct {
	FleetID            string   `json:"fleet_id"`
	Hour               string   `json:"hour"` // when it begins
	TotalDistanceKm    float64  `json:"total_distance_km"`
	AvgSpeedKmh        *float64 `json:"avg_speed_kmh,omitempty"`
	AlertsCount        int      `json:"alerts_count"`
	ActiveDevicesCount int      `json:"active_devices_count"`
}

// manyDays is the range of lists that are read by days.
var manyDays = &params.Span{Default: 7 * 24 * time.Hour, Max: (cassandra.MaxDays - 1) * 24 * time.Hour}

const msPerHour = 60 * 60 * 1000

func (a *API) analytics() list[hourItem] {
	return list[hourItem]{
		Spec: params.Spec{Route: "analytics", Span: manyDays}, path: "/v1/fleets/{fleet}/analytics", idField: fieldFleet, ttl: rangeTTL(ttlList),
		page: analyticsPage,
	}
}

// analyticsPage reads the hours that overlap the range, oldest first. The position is the last hour.
func analyticsPage(ctx context.Context, store Store, q *params.Query) (items []hourItem, position string, err error) {
	from := q.From - q.From%msPerHour
	if q.Position != "" {
		last, err := strconv.ParseInt(q.Position, 10, 64)
		if err != nil || last < 0 || last > params.MaxTime {
			return nil, "", q.BadPage()
		}
		from = max(from, last+msPerHour)
	}
	// Read no more days at once than a full page needs.
	days := cassandra.Day(min(q.Limit/24+2, cassandra.MaxDays))
	end := cassandra.DayOf(q.To)
	for first := cassandra.DayOf(from); first <= end; first += days {
		hours, err := store.Analytics(ctx, q.ID, first, min(first+days-1, end))
		if err != nil {
			return nil, "", err
		}
		for _, h := range hours {
			start := h.Start().UnixMilli()
			if start < from || start > q.To {
				continue
			}
			if len(items) == q.Limit {
				return items, position, nil
			}
			position = strconv.FormatInt(start, 10)
			items = append(items, hourItem{h.FleetID, formatTime(h.Start()), h.TotalDistanceKm, h.AvgSpeedKmh, int(h.AlertsCount), int(h.ActiveDevicesCount)})
		}
	}
	return items, "", nil
}
