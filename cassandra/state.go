package cassandra

import (
	"context"
	"slices"
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
type StateStore struct{ *Session }

const (
	updateDeviceDay     = "UPDATE device_days USING TIMESTAMP ? SET state = ?, rules = ?, fleets = fleets + ? WHERE device_id = ? AND day = ?"
	selectLastDeviceDay = "SELECT day, state, fleets, rules, WRITETIME(state) FROM device_days WHERE device_id = ? AND day <= ? LIMIT 1"
	selectDeviceDays    = "SELECT day, state, fleets, rules, WRITETIME(state) FROM device_days WHERE device_id = ? AND day >= ?"
)

// LastDeviceDay returns the latest state of a device up to the given day. found is false if there is none.
func (s *StateStore) LastDeviceDay(ctx context.Context, deviceID string, day Day) (d DeviceDay, found bool, err error) {
	days, err := collect(s.Session, s.query(ctx, selectLastDeviceDay, deviceID, day), deviceDay)
	if err != nil || len(days) == 0 {
		return DeviceDay{}, false, opError("read "+TableDeviceDays, err)
	}
	return days[0], true, nil
}

// DeviceDays lists the states of a device from the given day on, oldest first.
func (s *StateStore) DeviceDays(ctx context.Context, deviceID string, day Day) ([]DeviceDay, error) {
	days, err := collect(s.Session, s.query(ctx, selectDeviceDays, deviceID, day), deviceDay)
	slices.Reverse(days)
	return days, opError("read "+TableDeviceDays, err)
}

func deviceDay(d *DeviceDay) []any {
	return []any{&d.Day, &d.State, &d.Fleets, &d.Rules, &d.WriteTimeUs}
}

// ApplyDeviceDays writes the states of one device at the end of some days.
func (s *StateStore) ApplyDeviceDays(ctx context.Context, deviceID string, rows []Mutation[DeviceDay]) error {
	b := s.batch(ctx, len(rows))
	for i := range rows {
		d := &rows[i].Row
		b.add(updateDeviceDay, []any{rows[i].WriteTimeUs, d.State, d.Rules, d.Fleets, deviceID, d.Day})
	}
	return b.exec(TableDeviceDays)
}
