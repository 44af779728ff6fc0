package writer

import (
	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// plan is the writes of one batch of records.
type plan struct {
	history map[partition][]*pipeline.Item
	latest  map[*device]*latest
	devices map[deviceKey]*registryRow
	moves   map[deviceKey]int64 // devices to remove from a fleet's map, up to a version
	cleared map[string]int64    // devices whose optional cells to remove from the latest row, up to a version
}

// partition is a partition of history rows.
type partition struct {
	device *device
	day    cassandra.Day
}

// latest is what a batch writes to a device's latest row: the newest record, if it is newer than the stored one, and
// single cells of older records.
type latest struct {
	device *device
	newest *pipeline.Item // nil: only single cells
	extra  []latestCells
}

// latestCells are optional cells of a record that is not the newest, or the whole record with allCells.
type latestCells struct {
	item    *pipeline.Item
	version int64
	cells   cells
}

// allCells stands for the whole record, position, time and fleet included.
const allCells cells = 0xff

type deviceKey struct{ fleet, device string }

// registryRow is a row of a fleet's list of devices. The earliest activation and the latest status count.
type registryRow struct{ cassandra.DeviceRow }

func (r *registryRow) since(ms int64) {
	if r.ActivatedAtMs == 0 || ms < r.ActivatedAtMs {
		r.ActivatedAtMs = ms
	}
}

func (r *registryRow) status(s cassandra.Status, version int64) {
	if r.Status == "" || version > r.StatusWriteTimeUs {
		r.Status, r.StatusWriteTimeUs = s, version
	}
}

func newPlan(records int) *plan {
	return &plan{
		history: make(map[partition][]*pipeline.Item, records/16),
		latest:  make(map[*device]*latest, records/16),
		devices: map[deviceKey]*registryRow{},
		moves:   map[deviceKey]int64{},
		cleared: map[string]int64{},
	}
}

// add puts one record of a device into the plan. late reports whether a newer record is known.
func (p *plan) add(d *device, r *pipeline.Item) (late bool) {
	key := partition{d, cassandra.DayOf(r.TimeMs)}
	p.history[key] = append(p.history[key], r)
	return d.apply(p, r)
}

func (p *plan) latestOfDevice(d *device) *latest {
	l := p.latest[d]
	if l == nil {
		l = &latest{device: d}
		p.latest[d] = l
	}
	return l
}

// setNewest makes the record the one to write. Cells that only the previous one had are written too.
func (p *plan) setNewest(d *device, r *pipeline.Item) {
	l := p.latestOfDevice(d)
	has := cellsOf(r)
	for i := range l.extra {
		if l.extra[i].cells != allCells {
			l.extra[i].cells &^= has
		}
	}
	if l.newest != nil {
		if lost := cellsOf(l.newest) &^ has; lost != noCells {
			l.extra = append(l.extra, latestCells{l.newest, version(l.newest), lost})
		}
	}
	l.newest = r
}

func (p *plan) addLatest(d *device, r *pipeline.Item, v int64, c cells) {
	l := p.latestOfDevice(d)
	l.extra = append(l.extra, latestCells{r, v, c})
}

func (p *plan) registry(fleet, deviceID string) *registryRow {
	key := deviceKey{fleet, deviceID}
	row := p.devices[key]
	if row == nil {
		row = &registryRow{cassandra.DeviceRow{DeviceID: deviceID}}
		p.devices[key] = row
	}
	return row
}

// offMap removes the device from a fleet's map up to a version. Of several removals in one batch the greatest version
// includes the others.
func (p *plan) offMap(fleet, deviceID string, version int64) {
	key := deviceKey{fleet, deviceID}
	p.moves[key] = max(p.moves[key], version)
}

// rows yields the latest rows to write for the device, each with the fleet whose map it belongs to, or "" for none. Cells
// of another fleet, or from before the device was in another fleet, are not written.
func (l *latest) rows(yield func(fleet string, row cassandra.LatestRow)) {
	write := func(item *pipeline.Item, v int64, c cells) {
		fleet := ""
		if item.FleetID == l.device.fleet && v > l.device.minVersion {
			fleet = l.device.fleet
		}
		if c != noCells && (fleet != "" || c == allCells) {
			yield(fleet, latestRow(l.device.id, item, v, c))
		}
	}
	if l.newest != nil {
		write(l.newest, version(l.newest), allCells)
	}
	for _, e := range l.extra {
		write(e.item, e.version, e.cells)
	}
}

func latestRow(deviceID string, r *pipeline.Item, v int64, c cells) cassandra.LatestRow {
	row := cassandra.LatestRow{DeviceID: deviceID, WriteTimeUs: v}
	if c == allCells {
		row.LastTsMs, row.FleetID, row.Lat, row.Lon, row.Zone = &r.TimeMs, r.FleetID, &r.Lat, &r.Lon, r.Zone
	}
	if c&speedCell != 0 {
		row.SpeedKmh = r.SpeedKmh.Ptr()
	}
	if c&headingCell != 0 {
		row.HeadingDeg = r.HeadingDeg.Ptr()
	}
	if c&batteryCell != 0 {
		row.BatteryPct = r.BatteryPct.Ptr()
	}
	if c&tempCell != 0 {
		row.TempC = r.TempC.Ptr()
	}
	return row
}

// historyRow is the row of one record, written at the time nowMs.
func historyRow(r *pipeline.Item, nowMs int64) cassandra.TelemetryRow {
	return cassandra.TelemetryRow{
		TsMs: r.TimeMs, FleetID: r.FleetID, Lat: r.Lat, Lon: r.Lon, Zone: r.Zone,
		WriteTimeUs: historyVersion(r),
		TTLSeconds:  ttlSeconds(r.TimeMs, nowMs),
		SpeedKmh:    r.SpeedKmh.Ptr(), HeadingDeg: r.HeadingDeg.Ptr(), BatteryPct: r.BatteryPct.Ptr(), TempC: r.TempC.Ptr(), AccuracyM: r.AccuracyM.Ptr(),
	}
}
