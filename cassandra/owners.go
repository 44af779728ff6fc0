package cassandra

import (
	"context"
	"errors"
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

const (
	selectOwner        = "SELECT fleet_id, since, set_by, former_fleet FROM owner_by_device WHERE device_id = ?"
	insertOwner        = "INSERT INTO owner_by_device (device_id, fleet_id, since, set_by) VALUES (?, ?, ?, ?) IF NOT EXISTS"
	updateOwner        = "UPDATE owner_by_device SET fleet_id = ?, since = ?, set_by = ?, former_fleet = ? WHERE device_id = ? IF fleet_id = ? AND since = ?"
	insertFormerOwner  = "INSERT INTO former_owners_by_device (device_id, since, fleet_id, set_by) VALUES (?, ?, ?, ?)"
	selectFormerOwners = "SELECT since, fleet_id, set_by FROM former_owners_by_device WHERE device_id = ?"
)

// Owners returns the owners of devices, in the order of the arguments. It reads at the levels of LatestWriteTimes.
func (s *OwnerStore) Owners(ctx context.Context, deviceIDs []string) ([]Owner, error) {
	owners, err := s.owners(ctx, deviceIDs, overlapping(s.write, s.replication))
	if classify(err).TooFewReplicas() {
		owners, err = s.owners(ctx, deviceIDs, s.write)
	}
	return owners, opError("read "+TableOwners, err)
}

func (s *OwnerStore) owners(ctx context.Context, deviceIDs []string, level gocql.Consistency) ([]Owner, error) {
	return fanOut(ctx, writeTimesFanout, deviceIDs, func(ctx context.Context, deviceID string) (Owner, error) {
		o := Owner{DeviceID: deviceID}
		err := s.query(ctx, selectOwner, deviceID).Consistency(level).Scan(&o.FleetID, &o.Since, (*string)(&o.SetBy), &o.FormerFleet)
		if errors.Is(err, gocql.ErrNotFound) {
			err = nil
		}
		return o, err
	})
}

// SetFirstOwner makes a fleet the owner of a device that has none, and returns the owner in force: o, or the one that was
// faster. After an error the owner may be set; a repeated call returns it.
func (s *OwnerStore) SetFirstOwner(ctx context.Context, o Owner) (Owner, error) {
	return s.conditional(ctx, o, insertOwner, o.DeviceID, o.FleetID, o.Since, string(o.SetBy))
}

// MoveOwner replaces the owner of a device by another fleet, if it still is the one that was read, and keeps the former one
// among the device's former owners. It returns the owner in force.
func (s *OwnerStore) MoveOwner(ctx context.Context, from, to Owner) (Owner, error) {
	to.FormerFleet = from.FleetID
	// Before the move: then no move is lost, and if this one comes too late, the row repeats the present owner.
	if err := s.exec(ctx, TableFormerOwners, insertFormerOwner, from.DeviceID, from.Since, from.FleetID, string(from.SetBy)); err != nil {
		return Owner{}, err
	}
	return s.conditional(ctx, to, updateOwner, to.FleetID, to.Since, string(to.SetBy), to.FormerFleet, to.DeviceID, from.FleetID, from.Since)
}

// conditional runs a lightweight transaction that sets an owner, and returns the owner in force.
func (s *OwnerStore) conditional(ctx context.Context, to Owner, statement string, args ...any) (Owner, error) {
	applied, err := s.writing(ctx, statement, args...).DefaultTimestamp(false).SerialConsistency(gocql.Serial).MapScanCAS(map[string]any{})
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
