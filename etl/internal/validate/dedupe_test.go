package validate

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestDeduplicator(t *testing.T) {
	type step struct {
		key, payload uint64
		want         telemetry.Seen
	}
	for name, steps := range map[string][]step{
		"twice the same":              {{1, 10, telemetry.New}, {1, 10, telemetry.Duplicate}},
		"three times the same":        {{1, 10, telemetry.New}, {1, 10, telemetry.Duplicate}, {1, 10, telemetry.Duplicate}},
		"a conflict":                  {{1, 10, telemetry.New}, {1, 11, telemetry.Conflict}},
		"the first after a conflict":  {{1, 10, telemetry.New}, {1, 11, telemetry.Conflict}, {1, 10, telemetry.Duplicate}},
		"another with the payload":    {{1, 10, telemetry.New}, {2, 10, telemetry.New}},
		"payload zero is remembered":  {{1, 0, telemetry.New}, {1, 0, telemetry.Duplicate}},
		"identity zero is remembered": {{0, 10, telemetry.New}, {0, 10, telemetry.Duplicate}, {0, 0, telemetry.Conflict}},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDeduplicator(10)
			for i, s := range steps {
				assert.Equal(t, s.want, d.add(s.key, s.payload), "step %d", i+1)
			}
		})
	}
}

func TestDeduplicatorRemembersHalfOfItsLimit(t *testing.T) {
	for _, bound := range []int{2, 10, 11, 1000} {
		d := NewDeduplicator(bound)
		for key := range uint64(3 * bound) { // covers each state of its memory
			assert.Equal(t, telemetry.New, d.add(key, 1))
			if back := uint64(bound/2) - 1; key >= back {
				assert.Equal(t, telemetry.Duplicate, d.add(key-back, 1), "bound %d: record %d after %d more", bound, key-back, back)
			}
		}
	}
}

func TestDeduplicatorForgetsTheOldest(t *testing.T) {
	const bound = 100
	d := NewDeduplicator(bound)
	for key := range uint64(bound + 1) {
		d.add(key, 1)
	}
	assert.Equal(t, telemetry.New, d.add(0, 1), "the first of more than fit is forgotten")
	assert.Equal(t, telemetry.Duplicate, d.add(bound, 1), "the last is not")
}

func TestDeduplicatorStaysWithinItsLimit(t *testing.T) {
	for _, bound := range []int{2, 3, 10, 1000} {
		d := NewDeduplicator(bound)
		most := 0
		for key := range uint64(10 * bound) {
			d.add(key, key)
			d.add(key/2, key) // duplicates and conflicts
			most = max(most, len(d.young)+len(d.old))
		}
		assert.LessOrEqual(t, most, bound)
		assert.GreaterOrEqual(t, most, bound/2)
	}
}

// A record with the unkeyed hash of another can be made. It must not be dropped as a duplicate.
func TestRecordWithTheHashOfAnotherIsNoDuplicate(t *testing.T) {
	d := NewDeduplicator(10)
	first := telemetry.Record{DeviceID: "truck-1", FleetID: "wuxi", TimeMs: 1_772_366_400_000, Lat: 31.5, Lon: 120.25}
	forged := first
	forged.Lat = 48.1
	forged.Lon = math.Float64frombits(hashBeforeLon(&first) ^ math.Float64bits(first.Lon) ^ hashBeforeLon(&forged))
	assert.Equal(t, first.PayloadHash(), forged.PayloadHash())
	assert.Equal(t, telemetry.New, d.Add(&first))
	assert.Equal(t, telemetry.Conflict, d.Add(&forged))
	assert.Equal(t, telemetry.Duplicate, d.Add(&first))
}

// A record that another fleet sent first, and that is rejected later, makes no duplicate of the owner's.
func TestRecordOfAnotherFleetIsNoDuplicate(t *testing.T) {
	d := NewDeduplicator(10)
	rival := telemetry.Record{DeviceID: "truck-1", FleetID: "rival", TimeMs: 1_772_366_400_000, Lat: 1, Lon: 1}
	own := rival
	own.FleetID = "wuxi"
	assert.Equal(t, telemetry.New, d.Add(&rival))
	assert.Equal(t, telemetry.New, d.Add(&own))
	assert.Equal(t, telemetry.Duplicate, d.Add(&own))
	own.Lat = 2
	assert.Equal(t, telemetry.Conflict, d.Add(&own))
}

// hashBeforeLon is the state of PayloadHash before it adds the longitude: it is public, and each step can be undone.
func hashBeforeLon(r *telemetry.Record) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	for _, text := range []string{r.FleetID, r.Zone} {
		for _, c := range []byte(text) {
			h = (h ^ uint64(c)) * prime
		}
		h = (h ^ 0xff) * prime
	}
	h = (h ^ math.Float64bits(r.Lat)) * prime
	return h ^ h>>29
}
