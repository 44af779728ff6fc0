package generator

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var _ pipeline.Source = (*Source)(nil)

func runSource(t *testing.T, ctx context.Context, opts Options, emit func(pipeline.Batch) error) {
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
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		perVehicle := map[string]int{}
		position, previous := int64(0), time.Time{}
		runSource(t, ctx, Options{Vehicles: 50, Interval: 2 * time.Second}, func(b pipeline.Batch) error {
			now := time.Now()
			if b.Origin != "generator" || !b.Accepted.Equal(now) || len(b.Items) == 0 {
				t.Fatalf("batch of %d from %q at %v, clock %v", len(b.Items), b.Origin, b.Accepted, now)
			}
			b.Done(pipeline.Outcome{})
			for _, item := range b.Items {
				if position++; item.Position != position {
					t.Fatalf("position %d after %d", item.Position, position-1)
				}
				if age := now.Sub(item.Time()); age < 0 || age > 2*beat {
					t.Fatalf("record of %v emitted at %v", item.Time(), now)
				}
				perVehicle[item.DeviceID]++
			}
			if d := now.Sub(previous); !previous.IsZero() && (d < beat || d > 2*time.Second) {
				t.Errorf("waited for %v", d)
			}
			previous = now
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
	})
}

func TestPacedSourceStopsAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Vehicles: 7, Interval: 10 * time.Second, Records: 500, Late: 0.1, Duplicate: 0.1, Broken: 0.1}
		records, refused, late := map[telemetry.Record]bool{}, 0, 0
		runSource(t, t.Context(), opts, func(b pipeline.Batch) error {
			for _, item := range b.Items {
				if item.Raw != "" {
					continue
				}
				records[item.Record] = true
				age := time.Since(item.Time())
				if age < 0 {
					t.Fatalf("record of %v emitted at %v", item.Time(), time.Now())
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
	})
}

func TestBlockedSourceSkipsWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		batches, total, previous := 0, 0, telemetry.Record{}
		runSource(t, ctx, Options{Vehicles: 20, Interval: time.Second}, func(b pipeline.Batch) error {
			batches++
			total += len(b.Items)
			for _, item := range b.Items {
				if age := time.Since(item.Time()); age > patience+beat {
					t.Fatalf("record of %v emitted at %v", item.Time(), time.Now())
				}
				if item.DeviceID == "vehicle-0001" {
					if item.TimeMs <= previous.TimeMs {
						t.Fatalf("record of %v after %v", item.Time(), previous.Time())
					}
					previous = item.Record
				}
			}
			if batches == 100 {
				time.Sleep(time.Hour) // the pipeline was full
			}
			return nil
		})
		if want := 20 * 3600; total < want-100 || total > want+100 {
			t.Errorf("%d records in two hours, one of them blocked, want about %d", total, want)
		}
	})
}

func TestBatchesHaveAllRecords(t *testing.T) {
	var got []telemetry.Record
	refused, sizes := 0, []int{}
	sim, position := simulator(t, messy), int64(0)
	for sim.due() != never {
		b := nextBatch(sim, never-1, &position)
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
	}
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
	opts := Options{Vehicles: 100, Interval: 10 * time.Millisecond}
	s, err := NewSource(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), func(pipeline.Batch) error { return full }); !errors.Is(err, full) {
		t.Errorf("run gives %v, want the error of emit", err)
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
		t.Errorf("run gives %v after %d batches, want nil after 3", err, batches)
	}
	if _, err := NewSource(Options{Vehicles: 1}); err == nil {
		t.Error("a source without an interval was made")
	}
}
