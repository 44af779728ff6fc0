package canary_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fleettracing/fleet-tracing/etl/internal/canary"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store stands for the pipeline and the store: emitted records are readable after a delay.
type store struct {
	after   time.Duration // until a record can be read
	blocked time.Duration // time that emit blocks
	reject  *telemetry.Rejection
	err     error // of reads

	mu      sync.Mutex
	records []telemetry.Record
	at      []time.Time // when each was emitted
	reads   []time.Time
}

func (s *store) emit(b pipeline.Batch) error {
	time.Sleep(s.blocked)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, b.Items[0].Record)
	s.at = append(s.at, time.Now())
	if s.reject != nil {
		b.Done(pipeline.Outcome{Rejected: []pipeline.Rejected{{Rejection: s.reject}}})
	}
	return nil
}

func (s *store) read(ctx context.Context, device string, tsMs int64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = append(s.reads, time.Now())
	if s.err != nil {
		return false, s.err
	}
	for i := range s.records {
		if s.records[i].DeviceID == device && s.records[i].TimeMs == tsMs && s.reject == nil && time.Since(s.at[i]) >= s.after {
			return true, ctx.Err()
		}
	}
	return false, ctx.Err()
}

type harness struct {
	*store
	reg  *prometheus.Registry
	hook *test.Hook
	c    *canary.Canary
}

func newHarness(t *testing.T, s *store, o canary.Options) *harness {
	t.Helper()
	if o.Device = "canary-test"; o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	logger, hook := test.NewNullLogger()
	f := &harness{store: s, reg: prometheus.NewPedanticRegistry(), hook: hook}
	f.c = canary.New(o, s.read, logger, f.reg, time.Now)
	return f
}

// run runs the canary for d.
func (f *harness) run(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	require.NoError(t, f.c.Run(ctx, f.emit))
}

func (f *harness) logged() (lines []string) {
	for _, e := range f.hook.AllEntries() {
		line := e.Level.String() + ": " + e.Message
		if err, ok := e.Data[logrus.ErrorKey]; ok {
			line += fmt.Sprint(": ", err)
		}
		lines = append(lines, line)
	}
	return lines
}

// metrics returns the number and total seconds of round trips, the failures, and the time of the last round trip.
func (f *harness) metrics(t *testing.T) (arrived uint64, seconds, failures, lastSeen float64) {
	t.Helper()
	families, err := f.reg.Gather()
	require.NoError(t, err)
	for _, family := range families {
		m := family.Metric[0]
		switch family.GetName() {
		case "fleet_etl_canary_roundtrip_seconds":
			arrived, seconds = m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
		case "fleet_etl_canary_failures_total":
			failures = m.GetCounter().GetValue()
		case "fleet_etl_canary_last_seen_timestamp_seconds":
			lastSeen = m.GetGauge().GetValue()
		}
	}
	return arrived, seconds, failures, lastSeen
}

func TestRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		f := newHarness(t, &store{after: 300 * time.Millisecond}, canary.Options{Interval: 10 * time.Second})
		f.run(t, 45*time.Second)

		require.Len(t, f.records, 5, "at start and every ten seconds")
		for i, r := range f.records {
			assert.Equal(t, started.Add(time.Duration(i)*10*time.Second).UnixMilli(), r.TimeMs)
			assert.Equal(t, "_canary", r.FleetID)
			assert.Equal(t, telemetry.Some(0.0), r.SpeedKmh)
			_, seen, rejection := validate.New(nil, 10, nil).Validate(&r, time.Now().UnixMilli())
			assert.Nil(t, rejection, "the record is valid")
			assert.Equal(t, telemetry.New, seen)
		}
		arrived, seconds, failures, lastSeen := f.metrics(t)
		assert.EqualValues(t, 5, arrived)
		assert.InDelta(t, 5*0.3, seconds, 5*0.15, "as exact as the pauses")
		assert.GreaterOrEqual(t, seconds, 5*0.3)
		assert.Zero(t, failures)
		assert.InDelta(t, float64(started.Unix()+40), lastSeen, 1)
		assert.Empty(t, f.logged())

		first := f.reads[:6]
		for i := 2; i < len(first); i++ {
			assert.Greater(t, first[i].Sub(first[i-1]), first[i-1].Sub(first[i-2]), "pauses grow")
		}
		assert.Equal(t, 20*time.Millisecond, first[1].Sub(first[0]))
	})
}

func TestMissedRecord(t *testing.T) {
	for name, c := range map[string]struct {
		store *store
		want  string
	}{
		"never stored":      {&store{after: time.Hour}, "not stored yet"},
		"store unavailable": {&store{err: errors.New("no hosts")}, "read back: no hosts"},
		"rejected": {&store{reject: telemetry.Reject(telemetry.UnknownFleet, telemetry.FieldFleetID, "_canary", "add it to ETL_FLEETS")},
			"pipeline rejected it: "},
		"pipeline full": {&store{blocked: 45 * time.Second}, "pipeline is full"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newHarness(t, c.store, canary.Options{Interval: 10 * time.Second})
				f.run(t, 31*time.Second)
				arrived, _, failures, lastSeen := f.metrics(t)
				assert.Zero(t, arrived)
				assert.Zero(t, lastSeen, "never")
				assert.Positive(t, failures, "counted at the timeout")
				require.Len(t, f.logged(), 1, "once")
				assert.Contains(t, f.logged()[0], "warning: canary record missed its timeout: "+c.want)
			})
		})
	}
}

func TestOutageIsLoggedWithRemindersAndRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHarness(t, &store{err: errors.New("no hosts")}, canary.Options{Interval: 10 * time.Second, Timeout: 5 * time.Second})
		go func() {
			time.Sleep(12 * time.Minute)
			f.mu.Lock()
			f.err = nil
			f.mu.Unlock()
		}()
		f.run(t, 13*time.Minute-time.Second)
		assert.Equal(t, []string{
			"warning: canary record missed its timeout: read back: no hosts",
			"warning: canary records still miss their timeout: read back: no hosts",
			"warning: canary records still miss their timeout: read back: no hosts",
			"info: canary record readable again",
		}, f.logged())
		arrived, _, failures, _ := f.metrics(t)
		assert.Equal(t, 72.0, failures, "every ten seconds for twelve minutes")
		assert.EqualValues(t, 6, arrived)
	})
}

// At most one record is in flight, so a slow pipeline is not flooded.
func TestIntervalsDuringARoundTripAreSkipped(t *testing.T) {
	for name, c := range map[string]struct {
		store *store
		sent  []time.Duration // since the start
	}{
		"slow to store":  {&store{after: 25 * time.Second}, []time.Duration{0, 30 * time.Second, 60 * time.Second}},
		"slow to accept": {&store{blocked: 12 * time.Second}, []time.Duration{12 * time.Second, 32 * time.Second, 52 * time.Second}},
		"lost":           {&store{after: time.Hour}, []time.Duration{0, 40 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				started := time.Now()
				f := newHarness(t, c.store, canary.Options{Interval: 10 * time.Second})
				f.run(t, 65*time.Second)
				require.GreaterOrEqual(t, len(f.at), len(c.sent))
				for i, want := range c.sent {
					assert.InDelta(t, want, f.at[i].Sub(started), float64(600*time.Millisecond), "record %d", i)
				}
				for i := 1; i < len(f.records); i++ {
					assert.Greater(t, f.records[i].TimeMs, f.records[i-1].TimeMs)
				}
			})
		})
	}
}

// Other records of the canary do not count: neither an older one, nor one from a clock that was ahead.
func TestOnlyTheEmittedRecordCounts(t *testing.T) {
	for name, other := range map[string]time.Duration{"older": -time.Millisecond, "ahead": 45 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &store{}
				f := newHarness(t, s, canary.Options{Interval: time.Minute})
				s.records = []telemetry.Record{{DeviceID: "canary-test", TimeMs: time.Now().Add(other).UnixMilli()}}
				s.at = []time.Time{time.Now().Add(-time.Hour)}
				s.after = 40 * time.Second // more than the timeout, for the new one
				f.run(t, 50*time.Second)
				arrived, _, failures, _ := f.metrics(t)
				assert.Zero(t, arrived)
				assert.Equal(t, 1.0, failures)
			})
		})
	}
}

// After the clock is set back, the canary must not continue with times that the pipeline rejects as future.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		ahead.Store(int64(45 * time.Minute))
		s, logger := &store{}, logrus.New()
		c := canary.New(canary.Options{Interval: 10 * time.Second, Timeout: 30 * time.Second, Device: "canary-test"}, s.read, logger, prometheus.NewRegistry(), func() time.Time {
			return time.Now().Add(time.Duration(ahead.Load()))
		})
		started := time.Now()
		time.AfterFunc(25*time.Second, func() { ahead.Store(0) })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		require.NoError(t, c.Run(ctx, s.emit))
		require.GreaterOrEqual(t, len(s.records), 4)
		assert.Equal(t, started.Add(45*time.Minute+20*time.Second).UnixMilli(), s.records[2].TimeMs)
		assert.Less(t, s.records[3].TimeMs, started.Add(2*time.Minute).UnixMilli(), "by the corrected clock")
	})
}

func TestStopReturnsAtOnce(t *testing.T) {
	for name, s := range map[string]*store{
		"between records":            {},
		"while it reads back":        {after: time.Hour},
		"while the pipeline is full": {blocked: 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newHarness(t, s, canary.Options{Interval: time.Minute})
				started := time.Now()
				f.run(t, 7*time.Second)
				assert.Equal(t, 7*time.Second, time.Since(started))
				_, _, failures, _ := f.metrics(t)
				assert.Zero(t, failures, "a stop does not count as a failure")
			})
		})
	}
}

// With a real pipeline and a slow writer.
func TestWithPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		f := newHarness(t, s, canary.Options{Interval: 10 * time.Second})
		stop, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		p := pipeline.New(pipeline.Options{
			Validator: validate.New(nil, 100, nil), Registerer: prometheus.NewRegistry(), Now: time.Now, Queue: 1,
			Writer: writer(func(_ context.Context, in <-chan pipeline.ValidBatch) error {
				for c := range in {
					time.Sleep(2 * time.Second)
					assert.NoError(t, s.emit(pipeline.Batch{Items: c.Items}))
					c.Done()
				}
				return nil
			}),
		})
		require.NoError(t, p.Run(t.Context(), stop, f.c))
		assert.EqualValues(t, 3, p.Summary().Stored)
		arrived, seconds, failures, _ := f.metrics(t)
		assert.EqualValues(t, 3, arrived)
		assert.InDelta(t, 6, seconds, 1)
		assert.Zero(t, failures)
	})
}

type writer func(ctx context.Context, in <-chan pipeline.ValidBatch) error

func (w writer) Run(ctx context.Context, in <-chan pipeline.ValidBatch) error { return w(ctx, in) }

func TestFailedPipelineReturnsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newHarness(t, &store{}, canary.Options{Interval: time.Second})
		broken := errors.New("broken")
		require.ErrorIs(t, f.c.Run(t.Context(), func(pipeline.Batch) error { return broken }), broken)
	})
}

func TestFleetIsAPlatformFleet(t *testing.T) {
	assert.True(t, telemetry.PlatformFleet(canary.Fleet))
	assert.False(t, telemetry.PlatformFleet("canary_"))
}

func TestDeviceOf(t *testing.T) {
	for host, want := range map[string]string{
		"etl-1":                  "canary-etl-1",
		"etl.example.org":        "canary-etl.example.org",
		"my laptop/ü":            "canary-my-laptop---",
		strings.Repeat("x", 200): "canary-" + strings.Repeat("x", telemetry.MaxNameLen-7),
	} {
		assert.Equal(t, want, canary.DeviceOf(host))
		assert.True(t, telemetry.ValidName(canary.DeviceOf(host)))
	}
}

func TestMetrics(t *testing.T) {
	f := newHarness(t, &store{}, canary.Options{Interval: time.Second})
	problems, err := testutil.GatherAndLint(f.reg)
	require.NoError(t, err)
	assert.Empty(t, problems)
	arrived, _, failures, lastSeen := f.metrics(t)
	assert.Zero(t, arrived)
	assert.Zero(t, failures)
	assert.Zero(t, lastSeen)
	assert.Equal(t, "canary", f.c.Name())
}
