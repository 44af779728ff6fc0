package validate

import (
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
				assert.Equal(t, s.want, d.Add(s.key, s.payload), "step %d", i+1)
			}
		})
	}
}

func TestDeduplicatorRemembersHalfOfItsLimit(t *testing.T) {
	for _, bound := range []int{2, 10, 11, 1000} {
		d := NewDeduplicator(bound)
		for key := range uint64(3 * bound) { // covers each state of its memory
			assert.Equal(t, telemetry.New, d.Add(key, 1))
			if back := uint64(bound/2) - 1; key >= back {
				assert.Equal(t, telemetry.Duplicate, d.Add(key-back, 1), "bound %d: record %d after %d more", bound, key-back, back)
			}
		}
	}
}

func TestDeduplicatorForgetsTheOldest(t *testing.T) {
	const bound = 100
	d := NewDeduplicator(bound)
	for key := range uint64(bound + 1) {
		d.Add(key, 1)
	}
	assert.Equal(t, telemetry.New, d.Add(0, 1), "the first of more than fit is forgotten")
	assert.Equal(t, telemetry.Duplicate, d.Add(bound, 1), "the last is not")
}

func TestDeduplicatorStaysWithinItsLimit(t *testing.T) {
	for _, bound := range []int{2, 3, 10, 1000} {
		d := NewDeduplicator(bound)
		most := 0
		for key := range uint64(10 * bound) {
			d.Add(key, key)
			d.Add(key/2, key) // duplicates and conflicts
			most = max(most, len(d.young)+len(d.old))
		}
		assert.LessOrEqual(t, most, bound)
		assert.GreaterOrEqual(t, most, bound/2)
	}
}
