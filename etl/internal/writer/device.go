package writer

import (
	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Optional cells of a latest row, as a bit set.
type cells uint8

const (
	speedCell cells = 1 << iota
	headingCell
	batteryCell
	tempCell

	noCells cells = 0
)

func cellsOf(r *pipeline.Item) (c cells) {
	for i, valid := range [...]bool{r.SpeedKmh.Valid, r.HeadingDeg.Valid, r.BatteryPct.Valid, r.TempC.Valid} {
		if valid {
			c |= 1 << i
		}
	}
	return c
}

// device is the writer's state of one device. Versions are write timestamps: event time in µs, with a hash of the payload
// below the millisecond, so that every process prefers the same one of two payloads of one instant.
//
// The resulting rows must not depend on the order in which records arrive. So a late record still writes what no newer
// record had: an optional cell that newer ones lack, the start of the device's time in its fleet, and its membership of
// another fleet. It never changes position, time or fleet. The latest row has cells of one fleet only: of its records
// that are newer than every record for another fleet.
//
// One case depends on the order of arrival: two payloads of one device and millisecond, for two fleets, whose hashes
// agree below the millisecond (one in a thousand of such pairs).
type device struct {
	id         string
	batch      uint64 // number of the last batch with records of it
	fleet      string // of the newest record
	version    int64  // of the newest record; 0: never seen
	minVersion int64  // newest known version of a record for another fleet: older cells are not in the latest rows

	cells [4]int64 // by the bit of an optional cell: version of the newest record that had it; 0: none

	sinceMs int64            // earliest event time for fleet that was written; 0: none in this process
	former  map[string]int64 // other fleets it was in, each with the earliest event time that was written
}

// version is the write timestamp of a record.
func version(r *pipeline.Item) int64 { return r.TimeMs*1000 + int64(r.Hash%1000) }

// historyVersion is the write timestamp of a record's history row. It ranks conflicting payloads as version does, so that
// history and map show the same one, and continues where version ends: history rows expire, and of two expiring cells
// with one timestamp Cassandra keeps the one that expires later, which depends on when each was written. With the hash
// spread over a minute of µs, two payloads share a timestamp once in sixty million.
func historyVersion(r *pipeline.Item) int64 {
	const finer = 60_000
	return r.TimeMs*1000 + int64(r.Hash%1000)*finer + int64(r.Hash/1000%finer)
}

// restore loads the stored latest row of a device that was not in memory.
func (d *device) restore(s cassandra.WriteTimes) {
	if s.Found {
		d.fleet, d.version = s.FleetID, s.LastUs
		d.cells = [...]int64{s.SpeedUs, s.HeadingUs, s.BatteryUs, s.TempUs}
	}
}

// apply adds to the plan what one more record writes. late reports whether a newer record is known.
func (d *device) apply(p *plan, r *pipeline.Item) (late bool) {
	v := version(r)
	switch {
	case d.version == 0:
		d.fleet = r.FleetID
		d.becomeNewest(p, r, v)
		d.join(p, r.TimeMs)
	case v > d.version && r.FleetID != d.fleet:
		d.move(p, r, v)
	case v > d.version:
		d.becomeNewest(p, r, v)
		d.join(p, r.TimeMs)
	case v == d.version && r.FleetID == d.fleet:
		// A duplicate, or a conflicting payload whose hash agrees below the millisecond: the store decides cell by cell.
		p.addLatest(d, r, v, allCells)
		d.join(p, r.TimeMs)
	case r.FleetID == d.fleet:
		d.backfillColumns(p, r, v)
		d.join(p, r.TimeMs)
		return true
	default:
		d.lateForFormerFleet(p, r, v)
		return true
	}
	return false
}

// becomeNewest makes the record the device's latest row.
func (d *device) becomeNewest(p *plan, r *pipeline.Item, v int64) {
	d.version = v
	d.raise(cellsOf(r), v)
	p.setNewest(d, r)
}

// join registers the device with its fleet: once per process, and again when an earlier record arrives.
func (d *device) join(p *plan, eventMs int64) {
	if d.sinceMs != 0 && eventMs >= d.sinceMs {
		return
	}
	row := p.registry(d.fleet, d.id)
	row.since(eventMs)
	if d.sinceMs == 0 {
		row.status(cassandra.StatusActive, d.version)
	}
	d.sinceMs = eventMs
}

// move transfers the device to the fleet of a newer record.
func (d *device) move(p *plan, r *pipeline.Item, v int64) {
	p.registry(d.fleet, d.id).status(cassandra.StatusMoved, v)
	p.offMap(d.fleet, d.id, v)
	if d.former == nil {
		d.former = map[string]int64{}
	}
	d.former[d.fleet] = d.sinceMs
	d.fleet = r.FleetID
	d.clearUntil(p, d.version)
	d.sinceMs = 0
	d.becomeNewest(p, r, v)
	d.join(p, r.TimeMs)
}

// backfillColumns writes the cells of a late record that no newer record had.
func (d *device) backfillColumns(p *plan, r *pipeline.Item, v int64) {
	if missing := d.olderCells(cellsOf(r), v); missing != noCells && v > d.minVersion {
		d.raise(missing, v)
		p.addLatest(d, r, v, missing)
	}
}

// lateForFormerFleet handles a late record for a fleet that the device has left.
func (d *device) lateForFormerFleet(p *plan, r *pipeline.Item, v int64) {
	if since, known := d.former[r.FleetID]; !known || since == 0 || r.TimeMs < since {
		row := p.registry(r.FleetID, d.id)
		row.since(r.TimeMs)
		row.status(cassandra.StatusMoved, d.version)
		if d.former == nil {
			d.former = map[string]int64{}
		}
		d.former[r.FleetID] = r.TimeMs
	}
	if v > d.minVersion {
		d.clearUntil(p, v)
	}
}

// clearUntil removes from the latest rows what is not newer than the newest record for another fleet. The deletions store
// that version, too: later writes of older cells have no effect.
func (d *device) clearUntil(p *plan, v int64) {
	d.minVersion = v
	p.offMap(d.fleet, d.id, v)
	p.cleared[d.id] = v
}

func (d *device) raise(c cells, v int64) {
	for i := range d.cells {
		if c&(1<<i) != 0 {
			d.cells[i] = v
		}
	}
}

// olderCells returns the cells of c that the device has in no newer version. An equal version may belong to a conflicting
// payload; the store decides.
func (d *device) olderCells(c cells, v int64) (older cells) {
	for i, known := range d.cells {
		if c&(1<<i) != 0 && known <= v {
			older |= 1 << i
		}
	}
	return older
}

// devices is a bounded memory of devices in two generations. When the younger is full, the older is dropped. A dropped
// device is read from the store when it sends again, so a device stays in memory while its writes are in flight.
type devices struct {
	half       int
	young, old map[string]*device
	durable    func() uint64 // number of the batch up to which, inclusive, everything is durable
}

func newDevices(kept int, durable func() uint64) *devices {
	return &devices{half: max(1, kept/2), young: map[string]*device{}, old: map[string]*device{}, durable: durable}
}

// get returns the device if it is in memory, and keeps it there. batch is the number of the batch that needs it.
func (s *devices) get(id string, batch uint64) *device {
	d := s.young[id]
	if d == nil {
		if d = s.old[id]; d == nil {
			return nil
		}
		s.insert(d)
	}
	d.batch = batch
	return d
}

func (s *devices) put(id string, batch uint64) *device {
	d := &device{id: id, batch: batch}
	s.insert(d)
	return d
}

func (s *devices) insert(d *device) {
	if len(s.young) >= s.half {
		dropped, durable := s.old, s.durable()
		s.old, s.young = s.young, make(map[string]*device)
		for id, f := range dropped {
			if f.batch > durable && s.old[id] == nil {
				s.old[id] = f
			}
		}
	}
	s.young[d.id] = d
}
