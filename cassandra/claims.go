package cassandra

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gocql/gocql"
)

// Instance is a process that claims devices, for one epoch of it: a process that was fenced continues under a new ID.
type Instance struct {
	ID          string
	Role        InstanceRole // empty if the row was removed and only a late update wrote it again
	HeartbeatAt time.Time    // its last heartbeat, by its own clock
	Fenced      bool         // another instance takes over its claims; the ID is never used again
}

// InstanceRole is what an instance does.
type InstanceRole string

// Values of InstanceRole.
const (
	RoleStream InstanceRole = "stream" // runs until it is stopped, and accepts what ended instances leave
	RoleBatch  InstanceRole = "batch"  // ends with its input
	RoleEnded  InstanceRole = "ended"  // ended, and left claims or hours to another instance
)

// Claim says that an instance may have stored records of a device, of FromDay or later, whose derived rows are not all
// stored yet.
type Claim struct {
	InstanceID, DeviceID string
	FromDay              Day
	Fleets               []string // fleets that the records name; only ClaimsOfDevices reads them
	WriteTimeUs          int64    // write timestamp in µs; only Leftovers reads it
}

// ClaimStore keeps the running instances and the devices that each claims.
type ClaimStore struct{ *Session }

const claimBuckets = 64

const sharedBuckets = 16

// ClaimBucket is the partition of a device in both tables of claims.
func ClaimBucket(deviceID string) int32 { return bucketOf(deviceID, claimBuckets) }

const (
	updateHeartbeat     = "UPDATE etl_instances SET heartbeat_at = ? WHERE shard = 0 AND instance_id = ?"
	updateRole          = "UPDATE etl_instances SET heartbeat_at = ?, role = ? WHERE shard = 0 AND instance_id = ?"
	updateFenced        = "UPDATE etl_instances SET fenced = true WHERE shard = 0 AND instance_id = ?"
	selectInstances     = "SELECT instance_id, role, heartbeat_at, fenced FROM etl_instances WHERE shard = 0"
	insertSharedDevice  = "INSERT INTO shared_devices_by_instance (instance_id, bucket, device_id) VALUES (?, ?, ?) USING TTL 86400"
	deleteSharedDevice  = "DELETE FROM shared_devices_by_instance WHERE instance_id = ? AND bucket = ? AND device_id = ?"
	selectSharedDevices = "SELECT device_id FROM shared_devices_by_instance WHERE instance_id = ? AND bucket = ?"
	deleteInstance      = "DELETE FROM etl_instances WHERE shard = 0 AND instance_id = ?"

	insertPendingHour  = "INSERT INTO pending_hours_by_instance (instance_id, fleet_id, hour) VALUES (?, ?, ?)"
	selectPendingHours = "SELECT fleet_id, hour FROM pending_hours_by_instance WHERE instance_id = ?"
	deletePendingHours = "DELETE FROM pending_hours_by_instance WHERE instance_id = ?"

	updateClaim            = "UPDATE claims_by_device USING TIMESTAMP ? SET from_day = ?, fleets = fleets + ? WHERE bucket = ? AND device_id = ? AND instance_id = ?"
	deleteClaim            = "DELETE FROM claims_by_device USING TIMESTAMP ? WHERE bucket = ? AND device_id = ? AND instance_id = ?"
	selectClaims           = "SELECT device_id, instance_id, from_day, fleets FROM claims_by_device WHERE bucket = ? AND device_id IN ?"
	insertClaimByInstance  = "INSERT INTO claims_by_instance (instance_id, bucket, device_id, from_day) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
	deleteClaimByInstance  = "DELETE FROM claims_by_instance USING TIMESTAMP ? WHERE instance_id = ? AND bucket = ? AND device_id = ?"
	selectClaimsByInstance = "SELECT device_id, from_day, WRITETIME(from_day) FROM claims_by_instance WHERE instance_id = ? AND bucket = ?"
)

// execInstance writes at the coordinator's time. With the instance's own time, what an instance with a fast clock wrote
// could not be deleted until that time had come.
func (s *ClaimStore) execInstance(ctx context.Context, statement string, args ...any) error {
	return opError("write "+TableInstances, s.writing(ctx, statement, args...).DefaultTimestamp(false).Exec())
}

// Heartbeat records that an instance is running. A role, unless it is empty, is recorded too.
func (s *ClaimStore) Heartbeat(ctx context.Context, instanceID string, role InstanceRole, now time.Time) error {
	if role == "" {
		return s.execInstance(ctx, updateHeartbeat, now, instanceID)
	}
	return s.execInstance(ctx, updateRole, now, string(role), instanceID)
}

// FenceInstance marks an instance as fenced, at the consistency level of writes and at that of this store's reads. On the
// store with strong reads, every later read of the row returns the mark, whether it is strong or a fallback.
func (s *ClaimStore) FenceInstance(ctx context.Context, instanceID string) error {
	for _, level := range []gocql.Consistency{s.read, s.write} {
		err := s.writing(ctx, updateFenced, instanceID).Consistency(level).DefaultTimestamp(false).Exec()
		if err != nil {
			return opError("write "+TableInstances, err)
		}
	}
	return nil
}

// Instances lists every instance that sent a heartbeat and was not removed.
func (s *ClaimStore) Instances(ctx context.Context) ([]Instance, error) {
	rows, err := collect(s.Session, s.query(ctx, selectInstances), func(i *Instance) []any {
		return []any{&i.ID, &i.Role, &i.HeartbeatAt, &i.Fenced}
	})
	return rows, opError("read "+TableInstances, err)
}

// AddSharedDevices notes for an instance that another instance received records of devices that it claims.
func (s *ClaimStore) AddSharedDevices(ctx context.Context, instanceID string, deviceIDs []string) error {
	return s.updateSharedDevices(ctx, insertSharedDevice, instanceID, deviceIDs)
}

// RemoveSharedDevices removes devices that the instance handles as shared.
func (s *ClaimStore) RemoveSharedDevices(ctx context.Context, instanceID string, deviceIDs []string) error {
	return s.updateSharedDevices(ctx, deleteSharedDevice, instanceID, deviceIDs)
}

func (s *ClaimStore) updateSharedDevices(ctx context.Context, statement, instanceID string, deviceIDs []string) error {
	byBucket := map[int32][]string{}
	for _, id := range deviceIDs {
		bucket := bucketOf(id, sharedBuckets)
		byBucket[bucket] = append(byBucket[bucket], id)
	}
	_, err := fanOut(ctx, s.config.Fanout, slices.Collect(maps.Keys(byBucket)), func(ctx context.Context, bucket int32) (struct{}, error) {
		for part := range slices.Chunk(byBucket[bucket], 100) {
			var entries []gocql.BatchEntry
			for _, id := range part {
				entries = append(entries, gocql.BatchEntry{Stmt: statement, Args: []any{instanceID, bucket, id}, Idempotent: true})
			}
			if err := s.execEntries(ctx, entries); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	return opError("write "+TableSharedDevices, err)
}

// execEntries writes to one partition at the coordinator's time, as execInstance does.
func (s *ClaimStore) execEntries(ctx context.Context, entries []gocql.BatchEntry) error {
	b := s.driver.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
	b.Cons = s.write
	b.DefaultTimestamp(false)
	b.Entries = entries
	return s.driver.ExecuteBatch(b)
}

// SharedDevices lists the devices that an instance claims and another instance received records of.
func (s *ClaimStore) SharedDevices(ctx context.Context, instanceID string) ([]string, error) {
	parts, err := fanOut(ctx, s.config.Fanout, buckets(sharedBuckets), func(ctx context.Context, bucket int32) ([]string, error) {
		return collect(s.Session, s.query(ctx, selectSharedDevices, instanceID, bucket), one[string])
	})
	return slices.Concat(parts...), opError("read "+TableSharedDevices, err)
}

// RemoveInstance deletes the row and the pending hours of an instance that has ended.
func (s *ClaimStore) RemoveInstance(ctx context.Context, instanceID string) error {
	if err := s.execInstance(ctx, deletePendingHours, instanceID); err != nil {
		return err
	}
	return s.execInstance(ctx, deleteInstance, instanceID)
}

// AddPendingHours records hours of fleets that must be summed again after the instance has ended.
func (s *ClaimStore) AddPendingHours(ctx context.Context, instanceID string, hours []FleetHour) error {
	for part := range slices.Chunk(hours, 100) {
		var entries []gocql.BatchEntry
		for _, h := range part {
			entries = append(entries, gocql.BatchEntry{Stmt: insertPendingHour, Args: []any{instanceID, h.FleetID, time.UnixMilli(h.HourMs)}, Idempotent: true})
		}
		if err := s.execEntries(ctx, entries); err != nil {
			return opError("write "+TablePendingHours, err)
		}
	}
	return nil
}

// Leftovers lists the claims of an instance and its pending hours.
func (s *ClaimStore) Leftovers(ctx context.Context, instanceID string) ([]Claim, []FleetHour, error) {
	parts, err := fanOut(ctx, s.config.Fanout, buckets(claimBuckets), func(ctx context.Context, bucket int32) ([]Claim, error) {
		return collect(s.Session, s.query(ctx, selectClaimsByInstance, instanceID, bucket), func(c *Claim) []any {
			c.InstanceID = instanceID
			return []any{&c.DeviceID, &c.FromDay, &c.WriteTimeUs}
		})
	})
	if err != nil {
		return nil, nil, opError("read "+TableClaimsByInstance, err)
	}
	hours, err := collect(s.Session, s.query(ctx, selectPendingHours, instanceID), func(h *FleetHour) []any {
		return []any{&h.FleetID, &h.HourMs}
	})
	return slices.Concat(parts...), hours, opError("read "+TablePendingHours, err)
}

// ApplyInstanceClaims applies claims of one instance on devices of one ClaimBucket. A claim is written here before
// ApplyDeviceClaims writes it, so that every claim on a device is also found by its instance.
func (s *ClaimStore) ApplyInstanceClaims(ctx context.Context, rows []Mutation[Claim]) error {
	return apply(ctx, s.Session, TableClaimsByInstance, 5, rows, insertClaimByInstance, deleteClaimByInstance,
		func(a *arena, c *Claim) {
			bucket := ClaimBucket(c.DeviceID)
			a.add(&c.InstanceID, &bucket, &c.DeviceID)
		}, func(a *arena, c *Claim) { a.add(&c.FromDay) })
}

// ApplyDeviceClaims applies claims on devices of one ClaimBucket.
func (s *ClaimStore) ApplyDeviceClaims(ctx context.Context, rows []Mutation[Claim]) error {
	b := s.batch(ctx, len(rows))
	for _, m := range rows {
		c := m.Row
		if m.Delete {
			b.add(deleteClaim, []any{m.WriteTimeUs, ClaimBucket(c.DeviceID), c.DeviceID, c.InstanceID})
		} else {
			b.add(updateClaim, []any{m.WriteTimeUs, c.FromDay, c.Fleets, ClaimBucket(c.DeviceID), c.DeviceID, c.InstanceID})
		}
	}
	return b.exec(TableClaims)
}

// ClaimsOfDevices lists the claims on some devices of one ClaimBucket, one for each device and instance.
func (s *ClaimStore) ClaimsOfDevices(ctx context.Context, deviceIDs ...string) ([]Claim, error) {
	if len(deviceIDs) == 0 {
		return nil, nil
	}
	rows, err := collect(s.Session, s.query(ctx, selectClaims, ClaimBucket(deviceIDs[0]), deviceIDs), func(c *Claim) []any {
		return []any{&c.DeviceID, &c.InstanceID, &c.FromDay, &c.Fleets}
	})
	return rows, opError("read "+TableClaims, err)
}
