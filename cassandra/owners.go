package cassandra

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gocql/gocql"
)

// Owner is the fleet that a device belongs to.
type Owner struct {
	DeviceID    string
	FleetID     string    // empty: the device has no owner yet
	Since       time.Time // event time of its first record for the fleet, or from which an administrator gave it to the fleet
	SetBy       SetBy
	FormerFleet string // owner before; empty: none
}

// SetBy says what made a fleet the owner of a device.
type SetBy string

// Values of SetBy.
const (
	SetByRecord        SetBy = "record"         // its first record
	SetByTrusted       SetBy = "trusted_record" // a record of a sender that may write all fleets
	SetByAdministrator SetBy = "administrator"
)

// OwnerStore keeps the owner of each device. Lightweight transactions write it: they need a majority of all replicas.
type OwnerStore struct{ *Session }

const ownerBuckets = 256

// OwnerBucket is the partition of a device's owner.
func OwnerBucket(deviceID string) int32 { return bucketOf(deviceID, ownerBuckets) }

const (
	selectOwners       = "SELECT device_id, fleet_id, since, set_by, former_fleet FROM owner_by_device WHERE bucket = ? AND device_id IN ?"
	insertOwner        = "INSERT INTO owner_by_device (bucket, device_id, fleet_id, since, set_by) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS"
	updateOwner        = "UPDATE owner_by_device SET fleet_id = ?, since = ?, set_by = ?, former_fleet = ? WHERE bucket = ? AND device_id = ? IF fleet_id = ? AND since = ?"
	insertFormerOwner  = "INSERT INTO former_owners_by_device (device_id, since, fleet_id, set_by) VALUES (?, ?, ?, ?)"
	selectFormerOwners = "SELECT since, fleet_id, set_by FROM former_owners_by_device WHERE device_id = ?"
)

// Owners returns the owners of devices, in the order of the arguments. It reads at the levels of LatestWriteTimes.
func (s *OwnerStore) Owners(ctx context.Context, deviceIDs []string) ([]Owner, error) {
	owners, err := readOverlapping(s.Session, func(level gocql.Consistency) ([]Owner, error) { return s.owners(ctx, deviceIDs, level) })
	return owners, opError("read "+TableOwners, err)
}

func (s *OwnerStore) owners(ctx context.Context, deviceIDs []string, level gocql.Consistency) ([]Owner, error) {
	byBucket := map[int32][]string{}
	for _, id := range deviceIDs {
		byBucket[OwnerBucket(id)] = append(byBucket[OwnerBucket(id)], id)
	}
	parts, err := fanOut(ctx, writeTimesFanout, slices.Collect(maps.Keys(byBucket)), func(ctx context.Context, bucket int32) ([]Owner, error) {
		return collect(s.Session, s.query(ctx, selectOwners, bucket, byBucket[bucket]).Consistency(level), func(o *Owner) []any {
			return []any{&o.DeviceID, &o.FleetID, &o.Since, (*string)(&o.SetBy), &o.FormerFleet}
		})
	})
	found := map[string]Owner{}
	for _, o := range slices.Concat(parts...) {
		found[o.DeviceID] = o
	}
	owners := make([]Owner, len(deviceIDs))
	for i, id := range deviceIDs {
		owners[i] = found[id]
		owners[i].DeviceID = id
	}
	return owners, err
}

// SetFirstOwners makes fleets the owners of devices of one OwnerBucket that have none, in one transaction. It returns the
// owners in force, in the order of the arguments: the given owners, or faster ones. An owner without a fleet is
// being set by another process. After an error some owners may be set; a repeated call returns them.
func (s *OwnerStore) SetFirstOwners(ctx context.Context, owners []Owner) ([]Owner, error) {
	b := s.driver.NewBatch(gocql.UnloggedBatch).WithContext(ctx).DefaultTimestamp(false).SerialConsistency(gocql.Serial)
	b.Cons = s.write
	ids := make([]string, len(owners))
	for i, o := range owners {
		ids[i] = o.DeviceID
		b.Entries = append(b.Entries, gocql.BatchEntry{
			Stmt: insertOwner, Args: []any{OwnerBucket(o.DeviceID), o.DeviceID, o.FleetID, o.Since, string(o.SetBy)}, Idempotent: true,
		})
	}
	applied, iter, err := s.driver.MapExecuteBatchCAS(b, map[string]any{})
	if iter != nil {
		err = errors.Join(err, iter.Close())
	}
	if err != nil {
		return nil, opError("write "+TableOwners, err)
	}
	if applied {
		return owners, nil
	}
	// A single device with an owner undoes all: the others are set without it.
	inForce, err := s.Owners(ctx, ids)
	if err != nil {
		return nil, err
	}
	var without []Owner
	for i, o := range inForce {
		if o.FleetID == "" {
			without = append(without, owners[i])
		}
	}
	if len(without) == 0 || len(without) == len(owners) {
		return inForce, nil
	}
	set, err := s.SetFirstOwners(ctx, without)
	if err != nil {
		return nil, err
	}
	for i := range inForce {
		if inForce[i].FleetID == "" {
			inForce[i], set = set[0], set[1:]
		}
	}
	return inForce, nil
}

// MoveOwner replaces the owner of a device by another fleet, if it still is the one that was read, and keeps the former one
// among the device's former owners. It returns the owner in force.
func (s *OwnerStore) MoveOwner(ctx context.Context, from, to Owner) (Owner, error) {
	to.FormerFleet = from.FleetID
	// Before the move: then no move is lost, and if this one comes too late, the row repeats the present owner.
	if err := s.exec(ctx, TableFormerOwners, insertFormerOwner, from.DeviceID, from.Since, from.FleetID, string(from.SetBy)); err != nil {
		return Owner{}, err
	}
	applied, err := s.writing(ctx, updateOwner, to.FleetID, to.Since, string(to.SetBy), to.FormerFleet, OwnerBucket(to.DeviceID), to.DeviceID, from.FleetID, from.Since).
		DefaultTimestamp(false).SerialConsistency(gocql.Serial).MapScanCAS(map[string]any{})
	if err != nil {
		return Owner{}, opError("write "+TableOwners, err)
	}
	if applied {
		return to, nil
	}
	owners, err := s.Owners(ctx, []string{to.DeviceID})
	if err != nil {
		return Owner{}, err
	}
	return owners[0], nil
}

// FormerOwners lists the owners that a device had before, newest first.
func (s *OwnerStore) FormerOwners(ctx context.Context, deviceID string) ([]Owner, error) {
	rows, err := collect(s.Session, s.query(ctx, selectFormerOwners, deviceID), func(o *Owner) []any {
		o.DeviceID = deviceID
		return []any{&o.Since, &o.FleetID, (*string)(&o.SetBy)}
	})
	return rows, opError("read "+TableFormerOwners, err)
}
