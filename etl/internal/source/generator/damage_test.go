package generator

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestBrokenRecordsAreRejectedForTheirReason(t *testing.T) {
	opts := messy
	opts.Broken = 0.5
	seen := map[telemetry.Reason]int{}
	cut, texts := 0, 0
	for _, e := range run(t, opts) {
		if e.Damaged() && !e.Broken() {
			t.Fatalf("spoilt but not broken: %+v", e)
		}
		now := e.At.Add(10 * time.Minute)
		if e.Broken() {
			seen[e.Reason]++
		}
		if e.Cut {
			cut++
		}
		if e.Text != "" {
			texts++
		}
		if !e.Damaged() {
			if got := verdict(&e.Record, now); got != e.Reason {
				t.Fatalf("record is %q, want %q: %+v", got, e.Reason, e)
			}
		}
		csvLine := string(appendCSV(nil, &e))
		if _, got := readCSV(csvLine, now); got != e.Reason {
			t.Fatalf("CSV is %q, want %q: %s", got, e.Reason, csvLine)
		}
		jsonLine := string(appendJSON(nil, &e))
		if _, got := readJSON(jsonLine, now); got != e.Reason {
			t.Fatalf("JSON is %q, want %q: %s", got, e.Reason, jsonLine)
		}
	}
	for _, reason := range telemetry.Reasons {
		want := !slices.Contains(unbreakable, reason)
		if (seen[reason] > 0) != want {
			t.Errorf("%d records broken by %s", seen[reason], reason)
		}
	}
	if cut == 0 || texts == 0 {
		t.Errorf("%d lines cut, %d fields spoilt, want some of both", cut, texts)
	}
}

func TestBrokenTimesAreInvalidAtAnyTime(t *testing.T) {
	opts := messy
	opts.Broken = 1
	for _, e := range run(t, opts) {
		aYearLater := e.At.AddDate(1, 0, 0)
		if e.Reason == telemetry.Future && verdict(&e.Record, aYearLater) != telemetry.Future {
			t.Fatalf("%v is not in the future a year after %v", e.Record.Time(), e.At)
		}
		if e.Reason == telemetry.TooOld && verdict(&e.Record, e.At.AddDate(-1, 0, 0)) != telemetry.TooOld {
			t.Fatalf("%v is not too old a year before %v", e.Record.Time(), e.At)
		}
	}
}

func TestFractions(t *testing.T) {
	for _, tc := range []struct {
		name                    string
		late, duplicate, broken float64
	}{
		{"none", 0, 0, 0},
		{"some", 0.05, 0.03, 0.02},
		{"one kind", 0, 0.2, 0},
		{"all", 1, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts := messy
			opts.Late, opts.Duplicate, opts.Broken = tc.late, tc.duplicate, tc.broken
			var c Counts
			c.Broken = map[telemetry.Reason]int{}
			all := run(t, opts)
			for _, e := range all {
				c.add(&e)
			}
			if c.Good != opts.Records || c.Lines() != len(all) {
				t.Errorf("%d good of %d lines, want %d of %d", c.Good, c.Lines(), opts.Records, len(all))
			}
			near := func(what string, got int, fraction float64) {
				want := fraction * float64(opts.Records)
				if spread := 4 * math.Sqrt(want*(1-fraction)); math.Abs(float64(got)-want) > spread {
					t.Errorf("%d %s, want %.0f ± %.0f", got, what, want, spread)
				}
			}
			near("late", c.Late, tc.late)
			near("duplicates", c.Duplicate, tc.duplicate)
			near("broken", c.Lines()-c.Good-c.Duplicate, tc.broken)
		})
	}
}

func TestQueueReturnsTheEarliestFirst(t *testing.T) {
	d := roll(1, 2)
	var q queue
	var want []*held
	for i := range 500 {
		h := &held{at: int64(d.below(50)), seq: uint64(i)}
		heap.Push(&q, h)
		want = append(want, h)
	}
	slices.SortFunc(want, func(a, b *held) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
	for i := range want {
		if got := heap.Pop(&q).(*held); got != want[i] {
			t.Fatalf("element %d is %+v, want %+v", i, got, want[i])
		}
	}
	if len(q) != 0 {
		t.Errorf("%d elements left", len(q))
	}
}
