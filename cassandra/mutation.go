package cassandra

import "context"

// Mutation is one row to write, or to delete, at a write timestamp in µs. Of two mutations of a row the later one wins.
type Mutation[R any] struct {
	Row         R // of a deletion only the key counts
	Delete      bool
	WriteTimeUs int64
}

// Put returns mutations that write rows at a write timestamp in µs.
func Put[R any](writeTimeUs int64, rows ...R) []Mutation[R] {
	return mutations(false, writeTimeUs, rows)
}

// Remove returns mutations that delete rows at a write timestamp in µs.
func Remove[R any](writeTimeUs int64, rows ...R) []Mutation[R] {
	return mutations(true, writeTimeUs, rows)
}

func mutations[R any](remove bool, writeTimeUs int64, rows []R) (all []Mutation[R]) {
	for _, row := range rows {
		all = append(all, Mutation[R]{Row: row, Delete: remove, WriteTimeUs: writeTimeUs})
	}
	return all
}

// FleetHour is one hour of one fleet.
type FleetHour struct {
	FleetID string
	HourMs  int64 // first instant of the hour, Unix milliseconds
}

// Each of the following methods applies rows of one partition as one mutation. The rows of one call must agree in the
// partition key; callers bound their number.

// apply builds one statement per row: a deletion begins with the write timestamp, an insertion ends with it.
func apply[R any](ctx context.Context, db *Session, table string, width int, rows []Mutation[R], insert, remove string, key, cells func(*arena, *R)) error {
	a := newArena(len(rows), width)
	b := db.batch(ctx, len(rows))
	for i := range rows {
		from, statement := len(a.args), insert
		if rows[i].Delete {
			statement = remove
			a.bigint(rows[i].WriteTimeUs)
		}
		key(a, &rows[i].Row)
		if !rows[i].Delete {
			cells(a, &rows[i].Row)
			a.bigint(rows[i].WriteTimeUs)
		}
		b.add(statement, a.row(from))
	}
	return b.exec(table)
}

// ApplyDeviceAlerts applies alerts of one device and month.
func (s *AlertStore) ApplyDeviceAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.db, TableDeviceAlerts, 16, rows, insertDeviceAlert, deleteDeviceAlert,
		func(a *arena, r *Alert) {
			a.text(r.DeviceID)
			a.date(DayOf(r.OpenedMs).Month())
			a.timestamp(r.OpenedMs)
			a.text(r.Type)
		}, func(a *arena, r *Alert) {
			a.text(r.FleetID)
			a.text(r.Severity)
			a.bool(r.EndedMs != 0)
			if r.EndedMs != 0 {
				a.timestamp(r.EndedMs)
			} else {
				a.null() // a late record may have removed the end
			}
			a.alert(r)
		})
}

// ApplyOpenAlerts applies open alerts of one fleet.
func (s *AlertStore) ApplyOpenAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.db, TableOpenAlerts, 14, rows, insertOpenAlert, deleteOpenAlert,
		func(a *arena, r *Alert) {
			a.text(r.FleetID)
			a.text(r.DeviceID)
			a.text(r.Type)
		}, func(a *arena, r *Alert) {
			a.timestamp(r.OpenedMs)
			a.text(r.Severity)
			a.bool(r.Notify)
			a.alert(r)
		})
}

// ApplyFleetAlerts applies alerts of one fleet, day and severity. An alert that was resolved by hand stays resolved: that
// it is open is written with a time before anyone can have seen it.
func (s *AlertStore) ApplyFleetAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	a := newArena(2*len(rows), 14)
	b := s.db.batch(ctx, 2*len(rows))
	for i := range rows {
		r, at := &rows[i].Row, rows[i].WriteTimeUs
		if rows[i].Delete {
			from := len(a.args)
			a.bigint(at)
			a.fleetAlertKey(r)
			b.add(deleteFleetAlert, a.row(from))
			continue
		}
		from := a.fleetAlertKey(r)
		a.alert(r)
		a.bigint(at)
		b.add(insertFleetAlert, a.row(from))

		from = a.fleetAlertKey(r)
		a.bool(r.EndedMs != 0)
		if r.EndedMs != 0 {
			a.timestamp(r.EndedMs)
			a.bigint(at)
		} else {
			a.unset()
			a.bigint((r.OpenedMs - aheadMs) * 1000)
		}
		b.add(insertFleetAlertEnd, a.row(from))
	}
	return b.exec(TableAlerts)
}

// ApplyTrips applies trips and stops of one device that began in one month.
func (s *TripStore) ApplyTrips(ctx context.Context, deviceID string, rows []Mutation[TripRow]) error {
	return apply(ctx, s.db, TableTrips, 17, rows, insertTrip, deleteTrip,
		func(a *arena, r *TripRow) {
			a.text(deviceID)
			a.date(DayOf(r.StartMs).Month())
			a.timestamp(r.StartMs)
			a.text(r.Kind)
		}, func(a *arena, r *TripRow) {
			a.text(r.FleetID)
			a.timestamp(r.EndMs)
			a.bool(r.Open)
			a.double(r.DistanceKm)
			a.nullableDouble(r.MaxSpeedKmh)
			a.double(r.IdleS)
			a.double(r.StartLat)
			a.double(r.StartLon)
			a.double(r.EndLat)
			a.double(r.EndLon)
			a.optionalText(r.StartZone)
			a.optionalText(r.EndZone)
		})
}

// ApplyHours applies what devices add to one hour of one fleet.
func (s *RollupStore) ApplyHours(ctx context.Context, rows []Mutation[HourRow]) error {
	return apply(ctx, s.db, TableHours, 11, rows, insertHour, deleteHour,
		func(a *arena, r *HourRow) {
			a.text(r.FleetID)
			a.timestamp(r.HourMs)
			a.text(r.DeviceID)
		}, func(a *arena, r *HourRow) {
			a.double(r.DistanceKm)
			a.double(r.SpeedSumKmh)
			a.bigint(r.SpeedCount)
			a.bigint(r.Records)
			a.double(r.MaxSpeedKmh)
			a.double(r.DrivingS)
			a.int(r.Alerts)
		})
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

// ApplyInstanceClaims applies claims of one instance on devices of one ClaimBucket. A claim is written here before
// ApplyDeviceClaim writes it, so that whoever finds a claim on a device can find it by its instance too.
func (s *ClaimStore) ApplyInstanceClaims(ctx context.Context, rows []Mutation[Claim]) error {
	return apply(ctx, s.db, TableClaimsByInstance, 5, rows, insertClaimByInstance, deleteClaimByInstance,
		func(a *arena, c *Claim) {
			a.text(c.InstanceID)
			a.int(ClaimBucket(c.DeviceID))
			a.text(c.DeviceID)
		}, func(a *arena, c *Claim) { a.date(c.FromDay) })
}

// ApplyDeviceClaim applies the claim of an instance on a device.
func (s *ClaimStore) ApplyDeviceClaim(ctx context.Context, m Mutation[Claim]) error {
	c := m.Row
	if m.Delete {
		return s.db.exec(ctx, TableClaims, deleteClaim, m.WriteTimeUs, c.DeviceID, c.InstanceID)
	}
	return s.db.exec(ctx, TableClaims, updateClaim, m.WriteTimeUs, c.FromDay.Time(), c.Fleets, c.DeviceID, c.InstanceID)
}
