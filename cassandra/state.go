package cassandra

import (
	"context"
	"slices"
	"time"

	"github.com/gocql/gocql"
)

// DeviceDay is the state of the stream processor for a device at the end of a day with positions.
type DeviceDay struct {
	Day    Day
	State  []byte
	Fleets []string // fleets of the device on that day; writes only add to them
	Rules  string   // fingerprint of the rules in force

	WriteTimeUs int64 // of State as it was read
}

// StateStore keeps the state of the stream processor by device and day.
type StateStore struct{ db *Session }

const (
	updateDeviceDay     = "UPDATE device_days USING TIMESTAMP ? SET state = ?, rules = ?, fleets = fleets + ? WHERE device_id = ? AND day = ?"
	selectLastDeviceDay = "SELECT day, state, fleets, rules, WRITETIME(state) FROM device_days WHERE device_id = ? AND day <= ? LIMIT 1"
	selectDeviceDays    = "SELECT day, state, fleets, rules, WRITETIME(state) FROM device_days WHERE device_id = ? AND day >= ?"
)

// LastDeviceDay returns the latest state of a device up to the given day. found is false if there is none.
func (s *StateStore) LastDeviceDay(ctx context.Context, deviceID string, day Day) (d DeviceDay, found bool, err error) {
	days, err := collect(s.db, s.db.query(ctx, selectLastDeviceDay, deviceID, day.Time()), scanDeviceDay)
	if err != nil || len(days) == 0 {
		return DeviceDay{}, false, opError("read "+TableDeviceDays, err)
	}
	return days[0], true, nil
}

// DeviceDays lists the states of a device from the given day on, oldest first.
func (s *StateStore) DeviceDays(ctx context.Context, deviceID string, day Day) ([]DeviceDay, error) {
	days, err := collect(s.db, s.db.query(ctx, selectDeviceDays, deviceID, day.Time()), scanDeviceDay)
	slices.Reverse(days)
	return days, opError("read "+TableDeviceDays, err)
}

func scanDeviceDay(iter *gocql.Iter) (DeviceDay, bool) {
	var d DeviceDay
	var day time.Time
	ok := iter.Scan(&day, &d.State, &d.Fleets, &d.Rules, &d.WriteTimeUs)
	d.Day = DayOf(day.UnixMilli())
	return d, ok
}

// ApplyDeviceDays writes the states of one device at the end of some days.
func (s *StateStore) ApplyDeviceDays(ctx context.Context, deviceID string, rows []Mutation[DeviceDay]) error {
	b := s.db.batch(ctx, len(rows))
	for i := range rows {
		d := &rows[i].Row
		b.add(updateDeviceDay, []any{rows[i].WriteTimeUs, d.State, d.Rules, d.Fleets, deviceID, d.Day.Time()})
	}
	return b.exec(TableDeviceDays)
}
