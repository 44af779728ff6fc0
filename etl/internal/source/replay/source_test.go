package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/eventorder"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var _ pipeline.Source = (*Source)(nil)

// trace is a recorded trace that ends with an error, if there is one.
type trace struct {
	entries []eventorder.Entry
	err     error
}

func (t trace) Records(context.Context) iter.Seq2[eventorder.Entry, error] {
	return func(yield func(eventorder.Entry, error) bool) {
		for _, e := range t.entries {
			if !yield(e, nil) {
				return
			}
		}
		if t.err != nil {
			yield(eventorder.Entry{}, t.err)
		}
	}
}

// at makes records of one file at the given milliseconds.
func at(origin string, ms ...int64) (entries []eventorder.Entry) {
	for i, t := range ms {
		entries = append(entries, eventorder.Entry{Origin: origin, Item: pipeline.Item{
			Record: telemetry.Record{DeviceID: "taxi-1", TimeMs: t}, Position: int64(i + 2),
		}})
	}
	return entries
}

// clock is a clock that moves only when it is waited for.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func (c *clock) Wait(_ context.Context, d time.Duration) error {
	c.now = c.now.Add(d)
	return nil
}

var began = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// play tells when which batches came: "offset origin:first event time+number of records".
func play(t *testing.T, tr Trace, speed float64) []string {
	t.Helper()
	c := &clock{began}
	s, err := New(Options{Trace: tr, Speed: speed, Now: c.Now, Wait: c.Wait})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = s.Run(t.Context(), func(b pipeline.Batch) error {
		b.Done(pipeline.Outcome{})
		if !b.Accepted.Equal(c.now) {
			t.Errorf("a batch sent at %s says it was accepted at %s", c.now, b.Accepted)
		}
		what := fmt.Sprintf("%d refused", len(b.Rejected))
		if len(b.Items) > 0 {
			what = fmt.Sprintf("%d+%d", b.Items[0].TimeMs, len(b.Items))
		}
		got = append(got, fmt.Sprintf("%s %s:%s", c.now.Sub(began), b.Origin, what))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPace(t *testing.T) {
	refused := []eventorder.Entry{
		{Origin: "a", Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it")},
		{Origin: "b", Rejection: telemetry.Reject(telemetry.Malformed, "", "", "fix it")},
	}
	minute := at("a", 5000, 5050, 5090, 15_000, 65_000)
	for _, c := range []struct {
		name  string
		speed float64
		trace []eventorder.Entry
		want  []string
	}{
		{"as recorded", 1, minute, []string{"90ms a:5000+3", "10s a:15000+1", "1m0s a:65000+1"}},
		{"ten times", 10, minute, []string{"9ms a:5000+3", "1s a:15000+1", "6s a:65000+1"}},
		{"half", 0.5, minute, []string{"100ms a:5000+2", "180ms a:5090+1", "20s a:15000+1", "2m0s a:65000+1"}},
		{"no more than 100 ms in a batch", 1, at("a", 0, 100, 101, 200, 201), []string{"100ms a:0+2", "201ms a:101+3"}},
		{"two files", 1, slices.Concat(at("a", 0, 10), at("b", 20), at("a", 30)),
			[]string{"10ms a:0+2", "20ms b:20+1", "30ms a:30+1"}},
		{"refused first", 1, slices.Concat(refused, at("b", 7000, 8000)),
			[]string{"0s a:1 refused", "0s b:1 refused", "0s b:7000+1", "1s b:8000+1"}},
		{"only refused", 1, refused, []string{"0s a:1 refused", "0s b:1 refused"}},
		{"nothing", 1, nil, nil},
		{"a time beyond all times", 1, at("a", 0, math.MaxInt64), []string{"0s a:0+1", "2562047h47m16.854775807s a:9223372036854775807+1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := play(t, trace{entries: c.trace}, c.speed); !slices.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

func TestRejectedLineKeepsItsFields(t *testing.T) {
	want := pipeline.Rejected{
		Rejection: telemetry.Reject(telemetry.Malformed, "lat", "north", "give a number"), Position: 4, Raw: "bus-1,north", Fields: map[string]string{"lat": "north"},
	}
	e := eventorder.Entry{Item: pipeline.Item{Position: want.Position, Raw: want.Raw}, Origin: "a", Rejection: want.Rejection, Fields: want.Fields}
	s, err := New(Options{Trace: trace{entries: []eventorder.Entry{e}}, Speed: 1})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context(), func(b pipeline.Batch) error {
		if !reflect.DeepEqual(b.Rejected, []pipeline.Rejected{want}) {
			t.Errorf("got %+v", b.Rejected)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestManyRecordsAtTheSameTime(t *testing.T) {
	got := play(t, trace{entries: at("a", make([]int64, 2500)...)}, 1)
	if want := []string{"0s a:0+1000", "0s a:0+1000", "0s a:0+500"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOverdueRecordsFollowWithoutPause(t *testing.T) {
	c := &clock{began}
	s, _ := New(Options{Trace: trace{entries: at("a", 0, 1000, 2000, 10_000)}, Speed: 1, Now: c.Now, Wait: c.Wait, Total: 4})
	var sent, accepted []time.Duration
	if err := s.Run(t.Context(), func(b pipeline.Batch) error {
		sent, accepted = append(sent, c.now.Sub(began)), append(accepted, b.Accepted.Sub(began))
		if len(sent) == 1 {
			c.now = c.now.Add(5 * time.Second)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []time.Duration{0, 5 * time.Second, 5 * time.Second, 10 * time.Second}; !slices.Equal(sent, want) {
		t.Errorf("sent after %v, want %v", sent, want)
	}
	if want := []time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second}; !slices.Equal(accepted, want) {
		t.Errorf("latency counts from %v, want %v, when the records were due", accepted, want)
	}
	if done, total := s.Progress(); done != 4 || total != 4 {
		t.Errorf("progress %d of %d, want 4 of 4", done, total)
	}
}

func TestEndOfRun(t *testing.T) {
	full, broken := errors.New("pipeline is closed"), errors.New("read a line 3: broken")
	for _, c := range []struct {
		name   string
		trace  trace
		emit   error
		cancel bool
		want   error
	}{
		{name: "trace broken", trace: trace{at("a", 1), broken}, want: broken},
		{name: "pipeline closed", trace: trace{entries: at("a", 1)}, emit: full, want: full},
		{name: "stopped while waiting", trace: trace{entries: at("a", 1, 3_600_000)}, cancel: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, _ := New(Options{Trace: c.trace, Speed: 1})
			err := s.Run(ctx, func(pipeline.Batch) error {
				if c.cancel {
					cancel()
				}
				return c.emit
			})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestSpeed(t *testing.T) {
	for _, speed := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := New(Options{Speed: speed}); err == nil || !strings.Contains(err.Error(), "--speed") {
			t.Errorf("speed %g: got %v", speed, err)
		}
	}
}

func TestCheckPace(t *testing.T) {
	const hour = time.Hour
	for _, c := range []struct {
		name  string
		first time.Duration // before the start
		span  time.Duration
		speed float64
		want  []string // parts of the error
	}{
		{"from now as recorded", 0, 10 * hour, 1, nil},
		{"from now slowly", 0, 10 * hour, 0.5, nil},
		{"from now ten times", 0, hour, 10, []string{
			"2026-11-01T12:00:00Z to 2026-11-01T13:00:00Z", "--speed 10", "54m0s ahead", "--start-at 2026-11-01T11:11:00Z", "--speed 1.09 "}},
		{"far enough back", -49 * time.Minute, hour, 10, nil},
		{"not far enough back", -48*time.Minute - 59*time.Second, hour, 10, []string{"5m1s ahead", "--start-at 2026-11-01T11:11:00Z"}},
		{"short", 0, 5 * time.Minute, 1000, nil},
		{"in the future", hour, hour, 1, []string{"1h0m0s ahead", "--start-at 2026-11-01T12:05:00Z"}},
		{"one record", 0, 0, 100, nil},
		{"speed 0", 0, hour, 0, []string{"--speed 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := began.Add(c.first)
			err := CheckPace(first.UnixMilli(), first.Add(c.span).UnixMilli(), began, c.speed)
			if c.want == nil && err != nil {
				t.Error(err)
			}
			for _, part := range c.want {
				if err == nil || !strings.Contains(err.Error()+" ", part) {
					t.Errorf("got %v, without %q", err, part)
				}
			}
		})
	}
}

// What CheckPace advises is good.
func TestCheckPaceRemedies(t *testing.T) {
	first, last := began.UnixMilli(), began.Add(7*time.Hour).UnixMilli()
	if err := CheckPace(first, last, began, 3); err == nil || !strings.HasSuffix(err.Error(), "start with --start-at 2026-11-01T07:25:00Z or before, or use --speed 1.01 or less") {
		t.Fatal(err)
	}
	if err := CheckPace(first, last, began, 1.01); err != nil {
		t.Error(err)
	}
	back := (4*time.Hour + 35*time.Minute).Milliseconds()
	if err := CheckPace(first-back, last-back, began, 3); err != nil {
		t.Error(err)
	}
	if err := CheckPace(math.MinInt64, math.MaxInt64, began, 3); err == nil {
		t.Error("a trace of all times is playable")
	}
}
