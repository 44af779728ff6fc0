package query

import (
	"context"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
)

// The fields of paths, in error messages.
const (
	fieldFleet  = "fleet"
	fieldDevice = "device"
)

// How long responses stay in the cache.
const (
	ttlLatest = time.Second
	ttlList   = 10 * time.Second
	ttlClosed = 5 * time.Minute // of past days
)

// timeFormat is the format of times, which telemetry can read.
const timeFormat = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

func fixedTTL(d time.Duration) func(*params.Query, time.Time) time.Duration {
	return func(*params.Query, time.Time) time.Duration { return d }
}

// fleetItem is a fleet in a response.
type fleetItem struct {
	FleetID string `json:"fleet_id"`
}

func (a *API) fleets() list[fleetItem] {
	return list[fleetItem]{
		Spec: params.Spec{Route: "fleets"}, path: "/v1/fleets", ttl: fixedTTL(ttlList),
		page: func(ctx context.Context, store Store, q *params.Query) ([]fleetItem, string, error) {
			names, err := store.Fleets(ctx)
			if err != nil {
				return nil, "", err
			}
			var items []fleetItem
			for _, name := range names {
				if q.Scope == auth.AllFleets || q.Scope == name {
					items = append(items, fleetItem{name})
				}
			}
			items, position := after(items, q, func(f fleetItem) string { return f.FleetID })
			return items, position, nil
		},
	}
}

// after cuts a page from a list that is sorted by name and entirely in memory.
func after[T any](items []T, q *params.Query, name func(T) string) (page []T, position string) {
	from := slices.IndexFunc(items, func(item T) bool { return name(item) > q.Position })
	if from < 0 {
		return nil, ""
	}
	items = items[from:]
	if len(items) <= q.Limit {
		return items, ""
	}
	return items[:q.Limit], name(items[q.Limit-1])
}

// deviceItem is a device in a response.
type deviceItem struct {
	FleetID     string `json:"fleet_id"`
	DeviceID    string `json:"device_id"`
	Model       string `json:"model,omitempty"`
	ActivatedAt string `json:"activated_at,omitempty"`
	Status      string `json:"status"`
}

func (a *API) devices() list[deviceItem] {
	return list[deviceItem]{
		Spec: params.Spec{Route: "devices"}, path: "/v1/fleets/{fleet}/devices", idField: fieldFleet, ttl: fixedTTL(ttlList), streamed: true,
		page: devicesPage,
	}
}

// devicesPage continues to read when the store returns devices that moved to another fleet, so that its own pages are full.
func devicesPage(ctx context.Context, store Store, q *params.Query) (items []deviceItem, position string, err error) {
	position = q.Position
	for {
		p, err := store.Devices(ctx, q.ID, q.Limit-len(items), position)
		if err != nil {
			if q.Position != "" && cassandra.ReasonOf(err) == cassandra.ReasonInvalid {
				return nil, "", q.BadPage()
			}
			return nil, "", err
		}
		for _, d := range p.Rows {
			items = append(items, deviceItem{d.FleetID, d.DeviceID, d.Model, formatTime(d.ActivatedAt), string(d.Status)})
		}
		if position = p.Next; position == "" || len(items) >= q.Limit {
			return items, position, nil
		}
	}
}

func (a *API) latest() list[positionItem] {
	return list[positionItem]{
		Spec: params.Spec{Route: "latest"}, path: "/v1/fleets/{fleet}/latest", idField: fieldFleet, ttl: fixedTTL(ttlLatest), streamed: true,
		page: func(ctx context.Context, store Store, q *params.Query) ([]positionItem, string, error) {
			p, err := store.LatestPage(ctx, q.ID, q.Position, q.Limit)
			return positionItems(p.Rows), p.Next, err
		},
	}
}
