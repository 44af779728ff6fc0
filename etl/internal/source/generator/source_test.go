package generator

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var _ pipeline.Source = (*Source)(nil)

// clock advances only while a caller waits.
type clock struct {
	now   time.Time
	until time.Time // when ctx ends; zero is never
	end   context.CancelFunc
	waits []time.Duration
}

func (c *clock) Now() time.Time { return c.now }

func (c *clock) Wait(ctx context.Context, d time.Duration) error {
	c.waits = append(c.waits, d)
	c.now = c.now.Add(d)
	if !c.until.IsZero() && !c.now.Before(c.until) {
		c.end()
	}
	return ctx.Err()
}

func runSource(t *testing.T, ctx context.Context, opts SourceOptions, emit func(pipeline.Batch) error) {
	t.Helper()
	s, err := NewSource(opts)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != "generator" {
		t.Errorf("name %q", s.Name())
	}
	if err := s.Run(ctx, emit); err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestPacedSourceFollowsTheClock(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &clock{now: monday, until: monday.Add(time.Minute), end: cancel}
	opts := SourceOptions{Options: Options{Vehicles: 50, Interval: 2 * time.Second}, Pace: true, Now: c.Now, Wait: c.Wait}
	perVehicle := map[string]int{}
	position := int64(0)
	runSource(t, ctx, opts, func(b pipeline.Batch) error {
		if b.Origin != "generator" || b.Accepted != c.now || len(b.Items) == 0 {
			t.Fatalf("batch of %d from %q at %v, clock %v", len(b.Items), b.Origin, b.Accepted, c.now)
		}
		b.Done(pipeline.Outcome{})
		for _, item := range b.Items {
			if position++; item.Position != position {
				t.Fatalf("position %d after %d", item.Position, position-1)
			}
			if age := c.now.Sub(item.Time()); age < 0 || age > 2*beat {
				t.Fatalf("record of %v emitted at %v", item.Time(), c.now)
			}
			perVehicle[item.DeviceID]++
		}
		return nil
	})
	if len(perVehicle) != 50 {
		t.Errorf("%d vehicles reported, want 50", len(perVehicle))
	}
	for id, n := range perVehicle {
		if n < 29 || n > 30 {
			t.Errorf("%s reported %d times in a minute, want 30", id, n)
		}
	}
	for _, d := range c.waits {
		if d < beat || d > 2*time.Second {
			t.Errorf("waited for %v", d)
		}
	}
}

func TestPacedSourceStopsAtItsLimit(t *testing.T) {
	c := &clock{now: monday}
	opts := SourceOptions{Pace: true, Now: c.Now, Wait: c.Wait, Options: Options{
		Vehicles: 7, Interval: 10 * time.Second, Records: 500, Late: 0.1, Duplicate: 0.1, Broken: 0.1}}
	records, refused, late := map[telemetry.Record]bool{}, 0, 0
	runSource(t, t.Context(), opts, func(b pipeline.Batch) error {
		for _, item := range b.Items {
			if item.Raw != "" {
				continue
			}
			records[item.Record] = true
			age := c.now.Sub(item.Time())
			if age < 0 {
				t.Fatalf("record of %v emitted at %v", item.Time(), c.now)
			}
			if age > 2*opts.Interval {
				late++
			}
		}
		refused += len(b.Rejected)
		return nil
	})
	if len(records) != 500 || refused == 0 || late == 0 {
		t.Errorf("%d records, want 500; %d refused and %d late, want some", len(records), refused, late)
	}
}

func TestBlockedSourceSkipsWhatItMissed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &clock{now: monday, until: monday.Add(2 * time.Hour), end: cancel}
	opts := SourceOptions{Options: Options{Vehicles: 20, Interval: time.Second}, Pace: true, Now: c.Now, Wait: c.Wait}
	batches, total, previous := 0, 0, telemetry.Record{}
	runSource(t, ctx, opts, func(b pipeline.Batch) error {
		batches++
		total += len(b.Items)
		for _, item := range b.Items {
			if age := c.now.Sub(item.Time()); age > patience+beat {
				t.Fatalf("record of %v emitted at %v", item.Time(), c.now)
			}
			if item.DeviceID == "vehicle-0001" {
				if item.TimeMs <= previous.TimeMs {
					t.Fatalf("record of %v after %v", item.Time(), previous.Time())
				}
				previous = item.Record
			}
		}
		if batches == 100 {
			c.now = c.now.Add(time.Hour) // the pipeline was full
		}
		return nil
	})
	if want := 20 * 3600; total < want-100 || total > want+100 {
		t.Errorf("%d records in two hours, one of them blocked, want about %d", total, want)
	}
}

func TestUnpacedSourceStreamsSimulatedTime(t *testing.T) {
	opts := SourceOptions{Options: messy, Now: func() time.Time { return monday.AddDate(0, 0, 1) }}
	var got []telemetry.Record
	refused, sizes := 0, []int{}
	runSource(t, t.Context(), opts, func(b pipeline.Batch) error {
		sizes = append(sizes, len(b.Items)+len(b.Rejected))
		for _, item := range b.Items {
			got = append(got, item.Record)
			reason := verdict(&item.Record, monday.Add(time.Hour))
			if (reason != "") != (item.Raw != "") {
				t.Fatalf("%+v is %q and has the text %q", item.Record, reason, item.Raw)
			}
		}
		for _, r := range b.Rejected {
			refused++
			if _, reason := readJSON(r.Raw, monday); reason != r.Reason {
				t.Fatalf("%v has the text %s", r.Rejection, r.Raw)
			}
			switch r.Reason {
			case telemetry.Malformed, telemetry.MissingField, telemetry.BadTimestamp:
			default:
				t.Fatalf("%v could have been a record", r.Rejection)
			}
		}
		return nil
	})
	var want []telemetry.Record
	spoilt := 0
	for _, e := range run(t, messy) {
		if e.Damaged() {
			spoilt++
		} else {
			want = append(want, e.Record)
		}
	}
	if len(got) != len(want) || refused != spoilt {
		t.Fatalf("%d records and %d refused, want %d and %d", len(got), refused, len(want), spoilt)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("record %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	for i, n := range sizes {
		if n != batchSize && i < len(sizes)-1 {
			t.Errorf("batch %d has %d records", i, n)
		}
	}
}

func TestRejectionsMatchThoseOfAReader(t *testing.T) {
	opts := messy
	opts.Broken = 1
	for _, e := range run(t, opts) {
		if e.Text == "" {
			continue
		}
		var r telemetry.Record
		var want *telemetry.Rejection
		if err := r.SetText(e.Field, e.Text, telemetry.TimeFormat{}); !errors.As(err, &want) {
			t.Fatalf("%s %q is read without an error", e.Field, e.Text)
		}
		if _, got := telemetry.ParseJSON(appendJSON(nil, &e), ""); got.Reason != want.Reason || got.Field != want.Field || got.Value != want.Value {
			t.Fatalf("rejection %v, a reader says %v", got, want)
		}
	}
}

func TestSourceEnds(t *testing.T) {
	full := errors.New("store is gone")
	for _, pace := range []bool{false, true} {
		opts := SourceOptions{Pace: pace, Options: Options{Vehicles: 100, Interval: 10 * time.Millisecond, Start: monday}}
		s, err := NewSource(opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context(), func(pipeline.Batch) error { return full }); !errors.Is(err, full) {
			t.Errorf("pace %v: run gives %v, want the error of emit", pace, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		batches := 0
		err = s.Run(ctx, func(pipeline.Batch) error {
			if batches++; batches == 3 {
				cancel()
				return ctx.Err()
			}
			return nil
		})
		if err != nil || batches != 3 {
			t.Errorf("pace %v: run gives %v after %d batches, want nil after 3", pace, err, batches)
		}
	}
	if _, err := NewSource(SourceOptions{Options: Options{Vehicles: 1, Interval: time.Second}}); err == nil {
		t.Error("an unpaced source takes no start")
	}
}
