package cassandra

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"time"
)

// Device is a device of a fleet.
type Device struct {
	FleetID     string
	DeviceID    string
	Model       string    // empty if unknown
	ActivatedAt time.Time // event time of its first record for the fleet
	Status      Status
}

// DeviceRow is a row to write to devices_by_fleet, in two parts with a write timestamp each: the latest status wins, and
// the earliest activation.
type DeviceRow struct {
	DeviceID string
	Model    string // empty: unchanged
	Status   Status // empty: unchanged

	ActivatedAtMs     int64 // Unix milliseconds; 0: unchanged
	StatusWriteTimeUs int64
}

// Status says whether a listed device still belongs to the fleet.
type Status string

// Values of Status.
const (
	StatusActive Status = "active"
	StatusMoved  Status = "moved" // its newest record names another fleet
)

// RegistryStore keeps the fleets and the devices of each.
type RegistryStore struct{ *Session }

const (
	insertDeviceStatus = "INSERT INTO devices_by_fleet (fleet_id, device_id, model, status) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
	insertDeviceSince  = "INSERT INTO devices_by_fleet (fleet_id, device_id, activated_at) VALUES (?, ?, ?) USING TIMESTAMP ?"
	selectDevices      = "SELECT device_id, model, activated_at, status FROM devices_by_fleet WHERE fleet_id = ?"
	selectFleetsOf     = "SELECT fleet_id FROM devices_by_fleet WHERE fleet_id IN ? AND device_id = ?"
	selectDeviceIDs    = "SELECT device_id FROM devices_by_fleet WHERE fleet_id = ?"

	insertFleet  = "INSERT INTO fleets (shard, fleet_id) VALUES (?, ?) USING TIMESTAMP 1" // repeated writes are identical
	selectFleets = "SELECT fleet_id FROM fleets WHERE shard = ?"
)

const fleetShards = 4

// Devices returns a page of the devices of a fleet, sorted by device, without devices that have moved to another fleet. A
// page may have fewer rows than size although more pages follow.
func (s *RegistryStore) Devices(ctx context.Context, fleetID string, size int, page string) (Page[Device], error) {
	op := "read devices of fleet " + fleetID
	state, err := base64.RawURLEncoding.DecodeString(page)
	if err != nil {
		return Page[Device]{}, fmt.Errorf("%s: page %q: not a page of this list; take next from the previous page: %w", op, page, err)
	}
	iter := s.query(ctx, selectDevices, fleetID).PageSize(size).PageState(state).Iter()
	result := Page[Device]{Next: base64.RawURLEncoding.EncodeToString(iter.PageState())}
	for range iter.NumRows() { // Scan alone would continue with the next page
		d := Device{FleetID: fleetID}
		if !iter.Scan(&d.DeviceID, &d.Model, &d.ActivatedAt, &d.Status) {
			break
		}
		if d.Status != StatusMoved {
			result.Rows = append(result.Rows, d)
		}
	}
	if err := iter.Close(); err != nil {
		return Page[Device]{}, opError(op, err)
	}
	return result, nil
}

// DeviceIDs lists every device that was ever in a fleet, moved ones included, sorted.
func (s *RegistryStore) DeviceIDs(ctx context.Context, fleetID string) ([]string, error) {
	ids, err := collect(s.Session, s.query(ctx, selectDeviceIDs, fleetID), one[string])
	return ids, opError("read devices of fleet "+fleetID, err)
}

// FleetsOf returns the given fleets that a device was ever in. In the others it has no positions.
func (s *RegistryStore) FleetsOf(ctx context.Context, deviceID string, fleets []string) ([]string, error) {
	found, err := collect(s.Session, s.query(ctx, selectFleetsOf, fleets, deviceID), one[string])
	slices.Sort(found)
	return found, opError("read fleets of device "+deviceID, err)
}

// Fleets lists every fleet that ever sent a record, sorted.
func (s *RegistryStore) Fleets(ctx context.Context) ([]string, error) {
	parts, err := fanOut(ctx, s.config.Fanout, buckets(fleetShards), func(ctx context.Context, shard int32) ([]string, error) {
		return collect(s.Session, s.query(ctx, selectFleets, shard), one[string])
	})
	fleets := slices.Concat(parts...)
	slices.Sort(fleets)
	return fleets, opError("read fleets", err)
}

// WriteDevices writes rows of the devices of one fleet as one mutation.
func (s *RegistryStore) WriteDevices(ctx context.Context, fleetID string, rows []DeviceRow) error {
	a := newArena(2*len(rows), 5)
	b := s.batch(ctx, 2*len(rows))
	for i := range rows {
		r := &rows[i]
		if r.Status != "" {
			from := len(a.args)
			a.add(&fleetID, &r.DeviceID, (*optional)(&r.Model), (*string)(&r.Status), &r.StatusWriteTimeUs)
			b.add(insertDeviceStatus, a.row(from))
		}
		if r.ActivatedAtMs != 0 {
			from, at := len(a.args), earliestWins(r.ActivatedAtMs)
			a.add(&fleetID, &r.DeviceID, &r.ActivatedAtMs, &at)
			b.add(insertDeviceSince, a.row(from))
		}
	}
	return b.exec(TableDevices)
}

// earliestWins turns an event time into a write timestamp that is higher for earlier events, so that the earliest of
// several writes wins without a read. The result lies in the past, so that a deletion by hand still takes effect.
func earliestWins(ms int64) int64 { return 3_000_000_000_000_000 - ms*1000 }

// WriteFleet adds a fleet to the list of fleets.
func (s *RegistryStore) WriteFleet(ctx context.Context, fleetID string) error {
	return s.exec(ctx, TableFleets, insertFleet, bucketOf(fleetID, fleetShards), fleetID)
}
