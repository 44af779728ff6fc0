package generator

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var monday = time.Date(2026, 11, 2, 6, 0, 0, 0, time.UTC)

// run gives everything that the options yield; they must say how many records.
func run(t testing.TB, opts Options) []Emission {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	var all []Emission
	for e := (Emission{}); s.Next(&e); {
		all = append(all, e)
	}
	return all
}

// good leaves out duplicates and broken records, and puts late ones in their place.
func good(all []Emission) []telemetry.Record {
	var records []telemetry.Record
	for _, e := range all {
		if !e.Duplicate && !e.Broken() {
			records = append(records, e.Record)
		}
	}
	slices.SortFunc(records, func(a, b telemetry.Record) int {
		if a.TimeMs != b.TimeMs {
			return int(a.TimeMs - b.TimeMs)
		}
		return strings.Compare(a.DeviceID, b.DeviceID)
	})
	return records
}

var messy = Options{
	Seed: 3, Vehicles: 40, Fleets: 3, Interval: 5 * time.Second, Start: monday, Records: 20_000,
	Late: 0.05, Duplicate: 0.03, Broken: 0.02,
}

func TestSameOptionsSameSequence(t *testing.T) {
	first := run(t, messy)
	if !slices.Equal(first, run(t, messy)) {
		t.Error("two simulators with the same options differ")
	}
	other := messy
	other.Seed++
	if slices.Equal(first, run(t, other)) {
		t.Error("another seed gives the same sequence")
	}
}

func TestVehicleDoesNotDependOnTheOthers(t *testing.T) {
	of := func(vehicles int) (its []Emission) {
		opts := messy
		opts.Vehicles, opts.Records = vehicles, vehicles*400
		for _, e := range run(t, opts) {
			if strings.Contains(e.Record.DeviceID, "0003") && !e.Broken() {
				its = append(its, e)
			}
		}
		return its
	}
	few, many := of(3), of(70)
	// The last ones may be late in one run and, in the same order, cut off by nothing in the other.
	if len(few) < 400 || !slices.Equal(few, many) {
		t.Errorf("vehicle-0003 differs: %d emissions among 3 vehicles, %d among 70", len(few), len(many))
	}
}

func TestFaultsDoNotAffectValidRecords(t *testing.T) {
	clean := messy
	clean.Late, clean.Duplicate, clean.Broken = 0, 0, 0
	all := run(t, clean)
	if len(all) != clean.Records {
		t.Errorf("%d clean records, want %d", len(all), clean.Records)
	}
	if !slices.Equal(good(all), good(run(t, messy))) {
		t.Error("late, duplicate and broken records change the good ones")
	}
}

func TestOrderOfArrival(t *testing.T) {
	all := run(t, messy)
	newest := map[string]int64{}
	seen := map[string]int{}
	overtaken, late, adjacent, duplicates := 0, 0, 0, 0
	var previous Emission
	for _, e := range all {
		if e.At.Before(previous.At) {
			t.Fatalf("arrival %v after %v", e.At, previous.At)
		}
		r := &e.Record
		switch {
		case e.Broken():
		case e.Duplicate:
			duplicates++
			if seen[r.DeviceID+r.Time().String()] == 0 {
				t.Fatalf("duplicate %s %v came before its original", r.DeviceID, r.Time())
			}
			if previous.Record == e.Record {
				adjacent++
			}
		case e.Late:
			late++
			if delay := e.At.Sub(r.Time()); delay < 2*time.Second || delay > 5*time.Minute {
				t.Fatalf("late by %v", delay)
			}
			if r.TimeMs < newest[r.DeviceID] {
				overtaken++
			}
		case e.At.Sub(r.Time()) >= time.Millisecond || e.At.Before(r.Time()):
			t.Fatalf("record of %v arrives at %v", r.Time(), e.At)
		}
		if !e.Broken() {
			newest[r.DeviceID] = max(newest[r.DeviceID], r.TimeMs)
			if !e.Duplicate {
				seen[r.DeviceID+r.Time().String()]++
			}
		}
		previous = e
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("good record %s came %d times", key, n)
		}
	}
	if overtaken < late*9/10 {
		t.Errorf("%d of %d late records are older than what came before, want nearly all", overtaken, late)
	}
	if adjacent == 0 || adjacent == duplicates {
		t.Errorf("%d of %d duplicates are adjacent, want some", adjacent, duplicates)
	}
}

func TestVehiclesReportInTurn(t *testing.T) {
	opts := Options{Seed: 1, Vehicles: 60, Fleets: 4, Interval: time.Minute, Start: monday, Records: 600}
	all := run(t, opts)
	perSecond := map[time.Time]int{}
	fleets := map[string]int{}
	for i, e := range all {
		if i >= 60 {
			before := &all[i-60].Record
			if e.Record.DeviceID != before.DeviceID || e.Record.TimeMs-before.TimeMs != 60_000 {
				t.Fatalf("%s at %v follows %s at %v", e.Record.DeviceID, e.At, before.DeviceID, all[i-60].At)
			}
			continue
		}
		if e.At.Before(monday) || !e.At.Before(monday.Add(time.Minute)) {
			t.Errorf("first record of %s at %v", e.Record.DeviceID, e.At)
		}
		perSecond[e.At.Truncate(10*time.Second)]++
		fleets[e.Record.FleetID]++
	}
	for at, n := range perSecond {
		if n > 20 {
			t.Errorf("%d of 60 vehicles report in the ten seconds from %v", n, at)
		}
	}
	for _, id := range []string{"fleet-001", "fleet-002", "fleet-003", "fleet-004"} {
		if fleets[id] != 15 {
			t.Errorf("%s has %d vehicles, want 15", id, fleets[id])
		}
	}
}

func TestVehiclesDriveDuringSkippedTime(t *testing.T) {
	opts := Options{Seed: 1, Vehicles: 30, Interval: 10 * time.Second, Start: monday}
	whole, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	holed, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	var a, b Emission
	until := monday.Add(30 * time.Minute)
	for whole.Next(&a); a.At.Before(until); whole.Next(&a) {
	}
	holed.Next(&b)
	holed.skip(int64(until.Sub(monday)))
	holed.Next(&b)
	if a.Record.DeviceID != b.Record.DeviceID || a.At != b.At {
		t.Errorf("after the gap comes %s at %v, want %s at %v", b.Record.DeviceID, b.At, a.Record.DeviceID, a.At)
	}
	holed.skip(int64(time.Minute))
	var c Emission
	if holed.Next(&c); c.At.Before(b.At) {
		t.Errorf("skipping to the past goes back to %v", c.At)
	}
}

func TestOptions(t *testing.T) {
	ok := Options{Vehicles: 1, Interval: time.Second, Start: monday}
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no vehicles", func(o *Options) { o.Vehicles = 0 }, "vehicles 0: use 1 to"},
		{"negative fleets", func(o *Options) { o.Fleets = -1 }, "fleets -1: use 1 or more"},
		{"no interval", func(o *Options) { o.Interval = 0 }, "interval 0s: use 1ms or more"},
		{"no start", func(o *Options) { o.Start = time.Time{} }, "start 0001-01-01T00:00:00Z: use a time from 1970"},
		{"negative records", func(o *Options) { o.Records = -5 }, "records -5: use"},
		{"percent", func(o *Options) { o.Late = 5 }, "late 5: use a fraction from 0 to 1"},
		{"negative fraction", func(o *Options) { o.Broken = -0.1 }, "broken -0.1: use a fraction"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts := ok
			tc.change(&opts)
			if _, err := New(opts); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
	if _, err := New(ok); err != nil {
		t.Error(err)
	}
}
