package cassandra

import (
	"context"
	"errors"
	"time"

	"github.com/gocql/gocql"
)

// Process is one that derives.
type Process struct {
	ID     string
	SeenAt time.Time // its last sign of life, by its own clock
	Shared []string  // devices that another process has met while this one had them
}

// Mark says that a process may have stored records of a device, of this day or later, from which not everything was
// derived yet.
type Mark struct {
	ProcessID, DeviceID string
	FromDay             Day
	Fleets              []string // those that the records name; known to Marks only
}

const markBuckets = 16

// The statements of processes and marks.
const (
	updateProcess   = "UPDATE etl_processes SET seen_at = ? WHERE shard = 0 AND process_id = ?"
	selectProcesses = "SELECT process_id, seen_at, shared FROM etl_processes WHERE shard = 0"
	addShared       = "UPDATE etl_processes SET shared = shared + ? WHERE shard = 0 AND process_id = ?"
	removeShared    = "UPDATE etl_processes SET shared = shared - ? WHERE shard = 0 AND process_id = ?"
	deleteProcess   = "DELETE FROM etl_processes WHERE shard = 0 AND process_id = ?"

	updateMark          = "UPDATE marks_by_device USING TIMESTAMP ? SET from_day = ?, fleets = fleets + ? WHERE device_id = ? AND process_id = ?"
	insertMarkByProcess = "INSERT INTO marks_by_process (process_id, bucket, device_id, from_day) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
	deleteMark          = "DELETE FROM marks_by_device USING TIMESTAMP ? WHERE device_id = ? AND process_id = ?"
	deleteMarkByProcess = "DELETE FROM marks_by_process USING TIMESTAMP ? WHERE process_id = ? AND bucket = ? AND device_id = ?"
	selectMarks         = "SELECT process_id, from_day, fleets FROM marks_by_device WHERE device_id = ?"
	selectMarksOf       = "SELECT device_id, from_day FROM marks_by_process WHERE process_id = ? AND bucket = ?"
)

// execProcess does a write about processes at the time of the node that takes it. By the time of the process, what one with a clock
// that was ahead has written could not be taken back until that time.
func (s *Store) execProcess(ctx context.Context, statement string, args ...any) error {
	return opError("write "+TableProcesses, s.writing(ctx, statement, args...).DefaultTimestamp(false).Exec())
}

// Beat gives a process's sign of life.
func (s *Store) Beat(ctx context.Context, processID string, now time.Time) error {
	return s.execProcess(ctx, updateProcess, now, processID)
}

// Processes is every process that ever gave a sign of life and was not removed.
func (s *Store) Processes(ctx context.Context) ([]Process, error) {
	rows, err := collect(s, s.query(ctx, selectProcesses), func(iter *gocql.Iter) (Process, bool) {
		var p Process
		ok := iter.Scan(&p.ID, &p.SeenAt, &p.Shared)
		return p, ok
	})
	return rows, opError("read "+TableProcesses, err)
}

// TellShared tells a process that another has met devices that it has.
func (s *Store) TellShared(ctx context.Context, processID string, deviceIDs []string) error {
	return s.execProcess(ctx, addShared, deviceIDs, processID)
}

// HeardShared takes devices off what a process was told.
func (s *Store) HeardShared(ctx context.Context, processID string, deviceIDs []string) error {
	return s.execProcess(ctx, removeShared, deviceIDs, processID)
}

// RemoveProcess takes a process that ended off the list.
func (s *Store) RemoveProcess(ctx context.Context, processID string) error {
	return s.execProcess(ctx, deleteProcess, processID)
}

// WriteMark sets a mark, or moves it to another day. Whoever looks for the marks of a process finds it before those
// who look for the device's.
func (s *Store) WriteMark(ctx context.Context, m Mark, writeTimeUs int64) error {
	day := m.FromDay.Time()
	if err := s.exec(ctx, TableMarksByProcess, insertMarkByProcess, m.ProcessID, bucketOf(m.DeviceID, markBuckets), m.DeviceID, day, writeTimeUs); err != nil {
		return err
	}
	return s.exec(ctx, TableMarks, updateMark, writeTimeUs, day, m.Fleets, m.DeviceID, m.ProcessID)
}

// DeleteMark takes a mark away.
func (s *Store) DeleteMark(ctx context.Context, processID, deviceID string, writeTimeUs int64) error {
	return errors.Join(
		s.exec(ctx, TableMarks, deleteMark, writeTimeUs, deviceID, processID),
		s.exec(ctx, TableMarksByProcess, deleteMarkByProcess, writeTimeUs, processID, bucketOf(deviceID, markBuckets), deviceID))
}

// Marks is the marks of a device.
func (s *Store) Marks(ctx context.Context, deviceID string) ([]Mark, error) {
	rows, err := collect(s, s.query(ctx, selectMarks, deviceID), func(iter *gocql.Iter) (Mark, bool) {
		m := Mark{DeviceID: deviceID}
		var day time.Time
		ok := iter.Scan(&m.ProcessID, &day, &m.Fleets)
		m.FromDay = DayOf(day.UnixMilli())
		return m, ok
	})
	return rows, opError("read "+TableMarks, err)
}

// MarksOf is the marks of a process.
func (s *Store) MarksOf(ctx context.Context, processID string) ([]Mark, error) {
	buckets := make([]int32, markBuckets)
	for i := range buckets {
		buckets[i] = int32(i)
	}
	parts, err := fanOut(ctx, s.config.Fanout, buckets, func(ctx context.Context, bucket int32) ([]Mark, error) {
		return collect(s, s.query(ctx, selectMarksOf, processID, bucket), func(iter *gocql.Iter) (Mark, bool) {
			m := Mark{ProcessID: processID}
			var day time.Time
			ok := iter.Scan(&m.DeviceID, &day)
			m.FromDay = DayOf(day.UnixMilli())
			return m, ok
		})
	})
	var marks []Mark
	for _, part := range parts {
		marks = append(marks, part...)
	}
	return marks, opError("read "+TableMarksByProcess, err)
}
