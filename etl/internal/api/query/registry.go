package query

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// What paths name, as messages call it.
const (
	fieldFleet  = "fleet"
	fieldDevice = "device"
)

// How long answers are kept.
const (
	keepLatest = time.Second
	keepList   = 10 * time.Second
	keepClosed = 5 * time.Minute // days that are over
)

// timeForm is how times are written: what telemetry is read with.
const timeForm = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeForm)
}

func keepFor(d time.Duration) func(*query, time.Time) time.Duration {
	return func(*query, time.Time) time.Duration { return d }
}

// fleetItem is a fleet.
type fleetItem struct {
	FleetID string `json:"fleet_id"`
}

func (a *API) fleets() list[fleetItem] {
	return list[fleetItem]{
		route: routeFleets, columns: []string{"fleet_id"}, keep: keepFor(keepList),
		row: func(f fleetItem) []string { return []string{f.FleetID} },
		page: func(ctx context.Context, store Store, q *query) ([]fleetItem, string, error) {
			names, err := store.Fleets(ctx)
			if err != nil {
				return nil, "", err
			}
			var items []fleetItem
			for _, name := range names {
				if q.scope == AllFleets || q.scope == name {
					items = append(items, fleetItem{name})
				}
			}
			items, position := after(items, q, func(f fleetItem) string { return f.FleetID })
			return items, position, nil
		},
	}
}

// after is the page of a list that is sorted by name and held as a whole.
func after[T any](items []T, q *query, name func(T) string) (page []T, position string) {
	from := 0
	if q.position != "" {
		var found bool
		from, found = slices.BinarySearchFunc(items, q.position, func(item T, position string) int { return strings.Compare(name(item), position) })
		if found {
			from++
		}
	}
	items = items[from:]
	if len(items) <= q.limit {
		return items, ""
	}
	return items[:q.limit], name(items[q.limit-1])
}

// deviceItem is a device of a fleet.
type deviceItem struct {
	FleetID     string `json:"fleet_id"`
	DeviceID    string `json:"device_id"`
	Model       string `json:"model,omitempty"`
	ActivatedAt string `json:"activated_at,omitempty"`
	Status      string `json:"status"`
}

func (a *API) devices() list[deviceItem] {
	return list[deviceItem]{
		route: routeDevices, idField: fieldFleet, keep: keepFor(keepList), streamed: true,
		columns: []string{"fleet_id", "device_id", "model", "activated_at", "status"},
		row: func(d deviceItem) []string {
			return []string{d.FleetID, d.DeviceID, d.Model, d.ActivatedAt, d.Status}
		},
		page: devicesPage,
	}
}

// devicesPage reads on where the store's page has devices that moved away, so that pages are full all the same.
func devicesPage(ctx context.Context, store Store, q *query) (items []deviceItem, position string, err error) {
	position = q.position
	for {
		p, err := store.Devices(ctx, q.id, q.limit-len(items), position)
		if err != nil {
			if q.position != "" && cassandra.ReasonOf(err) == cassandra.ReasonInvalid {
				return nil, "", badPage(q.page)
			}
			return nil, "", err
		}
		for _, d := range p.Rows {
			items = append(items, deviceItem{d.FleetID, d.DeviceID, d.Model, formatTime(d.ActivatedAt), string(d.Status)})
		}
		if position = p.Next; position == "" || len(items) >= q.limit {
			return items, position, nil
		}
	}
}

func (a *API) latest() list[fixItem] {
	return list[fixItem]{
		route: routeLatest, idField: fieldFleet, keep: keepFor(keepLatest), columns: fixColumns, row: fixItem.row,
		page: func(ctx context.Context, store Store, q *query) ([]fixItem, string, error) {
			rows, err := store.LatestOfFleet(ctx, q.id)
			if err != nil {
				return nil, "", err
			}
			rows, position := after(rows, q, func(t cassandra.Telemetry) string { return t.DeviceID })
			return fixItems(rows), position, nil
		},
	}
}
