package validate

import (
	"hash/maphash"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Deduplicator remembers the newest records up to a bound. It calls an older duplicate new. That is harmless: the store
// writes the same row again.
type Deduplicator struct {
	secret     maphash.Seed
	half       int
	young, old map[uint64]uint64 // key hash to payload hash; young becomes old when it is full
}

// NewDeduplicator makes a deduplicator that remembers at least half of the given number of records, and at most all.
func NewDeduplicator(records int) *Deduplicator {
	half := max(1, records/2)
	return &Deduplicator{secret: maphash.MakeSeed(), half: half, young: make(map[uint64]uint64, half)}
}

// Add remembers a record, and returns whether an earlier one of its fleet had the same device and time. Records of
// other fleets do not count: they may be rejected later, and their times must not be revealed. Two different records would have to
// agree in all 128 bits of their hashes to count as duplicates, and the hashes are keyed.
func (d *Deduplicator) Add(r *telemetry.Record) telemetry.Seen {
	return d.add(maphash.Comparable(d.secret, identity{r.FleetID, r.DeviceID, r.TimeMs}), r.KeyedHash(d.secret))
}

type identity struct {
	fleetID, deviceID string
	timeMs            int64
}

func (d *Deduplicator) add(key, payload uint64) telemetry.Seen {
	known, ok := d.young[key]
	if !ok {
		known, ok = d.old[key]
	}
	if ok {
		if known == payload {
			return telemetry.Duplicate
		}
		return telemetry.Conflict
	}
	if len(d.young) >= d.half {
		d.old, d.young = d.young, d.old
		if d.young == nil {
			d.young = make(map[uint64]uint64, d.half)
		}
		clear(d.young)
	}
	d.young[key] = payload
	return telemetry.New
}
