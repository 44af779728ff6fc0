package ack

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestReleasesAcknowledgedPrefix compares a Tracker with the definition: after each step, the released items are the
// longest prefix of the added ones that is acknowledged.
func TestReleasesAcknowledgedPrefix(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		var tracker Tracker[uint64]
		var acked []bool // by number - 1
		var released []uint64
		for range 200 {
			if random.IntN(2) == 0 {
				number := tracker.Add(uint64(len(acked) + 1))
				acked = append(acked, false)
				if number != uint64(len(acked)) {
					t.Fatalf("seed %d: Add returned %d for item %d", seed, number, len(acked))
				}
			} else if len(acked) > 0 {
				number := 1 + random.Uint64N(uint64(len(acked))) // often acknowledged already
				acked[number-1] = true
				tracker.Ack(number, func(v uint64) { released = append(released, v) })
			}
			prefix := slices.Index(acked, false)
			if prefix < 0 {
				prefix = len(acked)
			}
			for i, v := range released {
				if v != uint64(i+1) {
					t.Fatalf("seed %d: released %v, want ascending numbers without a gap", seed, released)
				}
			}
			if len(released) != prefix || tracker.Released() != uint64(prefix) || tracker.Len() != len(acked)-prefix {
				t.Fatalf("seed %d: %d released, Released %d, Len %d; want %d of %d", seed, len(released), tracker.Released(), tracker.Len(), prefix, len(acked))
			}
		}
	}
}

func TestFindReturnsPendingItems(t *testing.T) {
	var tracker Tracker[int]
	for _, v := range []int{10, 20, 30, 40} {
		tracker.Add(v)
	}
	tracker.Ack(1, func(int) {})
	tracker.Ack(3, func(int) {})
	for value, want := range map[int]uint64{20: 2, 30: 3, 40: 4} {
		if number, ok := tracker.Find(func(v int) int { return v - value }); !ok || number != want {
			t.Errorf("Find(%d) = %d, %t, want %d", value, number, ok, want)
		}
	}
	for _, value := range []int{5, 10, 25, 50} {
		if number, ok := tracker.Find(func(v int) int { return v - value }); ok {
			t.Errorf("Find(%d) = %d, want none", value, number)
		}
	}
}

func TestIgnoresUnknownNumbers(t *testing.T) {
	var tracker Tracker[string]
	release := func(v string) { t.Errorf("released %q", v) }
	tracker.Ack(0, release)
	tracker.Ack(1, release)
	tracker.Add("a")
	tracker.Ack(2, release)
	if tracker.Len() != 1 {
		t.Errorf("Len %d, want 1", tracker.Len())
	}
}

func TestReleasedItemsAreNotRetained(t *testing.T) {
	var tracker Tracker[*int]
	tracker.Add(new(int))
	tracker.Add(new(int))
	array := tracker.pending
	tracker.Ack(1, func(*int) {})
	if array[0].value != nil {
		t.Error("the tracker still refers to a released item")
	}
}

func BenchmarkTracker(b *testing.B) {
	var tracker Tracker[[4]uint64]
	for range 1000 {
		tracker.Add([4]uint64{})
	}
	b.ReportAllocs()
	for b.Loop() {
		tracker.Add([4]uint64{})
		tracker.Ack(tracker.Released()+1, func([4]uint64) {})
	}
}
