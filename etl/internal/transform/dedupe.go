package transform

import "github.com/fleettracing/fleet-tracing/etl/internal/telemetry"

// Deduper remembers the identities of the records it was shown, the newest of them up to a bound. Beyond its memory a
// duplicate is taken for new, which the store forgives: the same row is written again.
type Deduper struct {
	half       int
	young, old map[uint64]uint64 // hash of identity to hash of payload
}

// NewDeduper makes a deduper that remembers between half as many and as many records as given.
func NewDeduper(records int) *Deduper {
	half := max(1, records/2)
	return &Deduper{half: half, young: make(map[uint64]uint64, half)}
}

// See tells whether a record was taken before, by the hashes of its identity and of its payload. Two different records
// would have to agree in all 128 bits to be taken for the same.
func (d *Deduper) See(key, payload uint64) telemetry.Seen {
	known, ok := d.young[key]
	if !ok {
		known, ok = d.old[key]
	}
	if ok {
		if known == payload {
			return telemetry.Same
		}
		return telemetry.Rival
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
