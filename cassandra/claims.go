package cassandra

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gocql/gocql"
)

// Instance is a running process that claims devices.
type Instance struct {
	ID            string
	HeartbeatAt   time.Time // its last heartbeat, by its own clock
	SharedDevices []string  // devices it claims that another instance received records of
}

// Claim says that an instance may have stored records of a device, of FromDay or later, whose derived rows are not all
// stored yet.
type Claim struct {
	InstanceID, DeviceID string
	FromDay              Day
	Fleets               []string // fleets that the records name; only ClaimsOfDevice reads them
}

// ClaimStore keeps the running instances and the devices that each claims.
type ClaimStore struct{ db *Session }

const claimBuckets = 16

const (
	updateHeartbeat     = "UPDATE etl_instances SET heartbeat_at = ? WHERE shard = 0 AND instance_id = ?"
	selectInstances     = "SELECT instance_id, heartbeat_at, shared_devices FROM etl_instances WHERE shard = 0"
	addSharedDevices    = "UPDATE etl_instances SET shared_devices = shared_devices + ? WHERE shard = 0 AND instance_id = ?"
	removeSharedDevices = "UPDATE etl_instances SET shared_devices = shared_devices - ? WHERE shard = 0 AND instance_id = ?"
	deleteInstance      = "DELETE FROM etl_instances WHERE shard = 0 AND instance_id = ?"

	updateClaim            = "UPDATE claims_by_device USING TIMESTAMP ? SET from_day = ?, fleets = fleets + ? WHERE device_id = ? AND instance_id = ?"
	deleteClaim            = "DELETE FROM claims_by_device USING TIMESTAMP ? WHERE device_id = ? AND instance_id = ?"
	selectClaims           = "SELECT instance_id, from_day, fleets FROM claims_by_device WHERE device_id = ?"
	insertClaimByInstance  = "INSERT INTO claims_by_instance (instance_id, bucket, device_id, from_day) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
	deleteClaimByInstance  = "DELETE FROM claims_by_instance USING TIMESTAMP ? WHERE instance_id = ? AND bucket = ? AND device_id = ?"
	selectClaimsByInstance = "SELECT device_id, from_day FROM claims_by_instance WHERE instance_id = ? AND bucket = ?"
)

// execInstance writes at the coordinator's time. With the instance's own time, what an instance with a fast clock wrote
// could not be deleted until that time had come.
func (s *ClaimStore) execInstance(ctx context.Context, statement string, args ...any) error {
	return opError("write "+TableInstances, s.db.writing(ctx, statement, args...).DefaultTimestamp(false).Exec())
}

// Heartbeat records that an instance is running.
func (s *ClaimStore) Heartbeat(ctx context.Context, instanceID string, now time.Time) error {
	return s.execInstance(ctx, updateHeartbeat, now, instanceID)
}

// Instances lists every instance that sent a heartbeat and was not removed.
func (s *ClaimStore) Instances(ctx context.Context) ([]Instance, error) {
	rows, err := collect(s.db, s.db.query(ctx, selectInstances), func(iter *gocql.Iter) (Instance, bool) {
		var i Instance
		ok := iter.Scan(&i.ID, &i.HeartbeatAt, &i.SharedDevices)
		return i, ok
	})
	return rows, opError("read "+TableInstances, err)
}

// AddSharedDevices records on an instance's row that another instance received records of devices that it claims.
func (s *ClaimStore) AddSharedDevices(ctx context.Context, instanceID string, deviceIDs []string) error {
	return s.execInstance(ctx, addSharedDevices, deviceIDs, instanceID)
}

// AckSharedDevices removes devices from an instance's row once the instance knows that they are shared.
func (s *ClaimStore) AckSharedDevices(ctx context.Context, instanceID string, deviceIDs []string) error {
	return s.execInstance(ctx, removeSharedDevices, deviceIDs, instanceID)
}

// RemoveInstance deletes the row of an instance that has ended.
func (s *ClaimStore) RemoveInstance(ctx context.Context, instanceID string) error {
	return s.execInstance(ctx, deleteInstance, instanceID)
}

// WriteClaim adds a claim, or moves it to another day. Readers of an instance's claims see it before readers of a
// device's claims do.
func (s *ClaimStore) WriteClaim(ctx context.Context, c Claim, writeTimeUs int64) error {
	day := c.FromDay.Time()
	if err := s.db.exec(ctx, TableClaimsByInstance, insertClaimByInstance, c.InstanceID, bucketOf(c.DeviceID, claimBuckets), c.DeviceID, day, writeTimeUs); err != nil {
		return err
	}
	return s.db.exec(ctx, TableClaims, updateClaim, writeTimeUs, day, c.Fleets, c.DeviceID, c.InstanceID)
}

// DeleteClaim deletes a claim from both tables.
func (s *ClaimStore) DeleteClaim(ctx context.Context, instanceID, deviceID string, writeTimeUs int64) error {
	return errors.Join(
		s.db.exec(ctx, TableClaims, deleteClaim, writeTimeUs, deviceID, instanceID),
		s.db.exec(ctx, TableClaimsByInstance, deleteClaimByInstance, writeTimeUs, instanceID, bucketOf(deviceID, claimBuckets), deviceID))
}

// ClaimsOfDevice lists the claims on a device, one for each instance.
func (s *ClaimStore) ClaimsOfDevice(ctx context.Context, deviceID string) ([]Claim, error) {
	rows, err := collect(s.db, s.db.query(ctx, selectClaims, deviceID), func(iter *gocql.Iter) (Claim, bool) {
		c := Claim{DeviceID: deviceID}
		var day time.Time
		ok := iter.Scan(&c.InstanceID, &day, &c.Fleets)
		c.FromDay = DayOf(day.UnixMilli())
		return c, ok
	})
	return rows, opError("read "+TableClaims, err)
}

// ClaimsOfInstance lists the claims of an instance.
func (s *ClaimStore) ClaimsOfInstance(ctx context.Context, instanceID string) ([]Claim, error) {
	parts, err := fanOut(ctx, s.db.config.Fanout, buckets(claimBuckets), func(ctx context.Context, bucket int32) ([]Claim, error) {
		return collect(s.db, s.db.query(ctx, selectClaimsByInstance, instanceID, bucket), func(iter *gocql.Iter) (Claim, bool) {
			c := Claim{InstanceID: instanceID}
			var day time.Time
			ok := iter.Scan(&c.DeviceID, &day)
			c.FromDay = DayOf(day.UnixMilli())
			return c, ok
		})
	})
	return slices.Concat(parts...), opError("read "+TableClaimsByInstance, err)
}
