package app

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
)

func TestClockIsComparedWithTheClusters(t *testing.T) {
	for name, c := range map[string]struct {
		nodes []time.Duration // that their clocks are ahead of the right time
		own   time.Duration
		want  float64
		wrong bool
	}{
		"right":                         {nodes: []time.Duration{0, 0, 0}},
		"four minutes ahead":            {nodes: []time.Duration{0, 0, 0}, own: 4 * time.Minute, want: 240},
		"six minutes ahead":             {nodes: []time.Duration{0, 0, 0}, own: 6 * time.Minute, want: 360, wrong: true},
		"ten days behind":               {nodes: []time.Duration{0, 0, 0}, own: -240 * time.Hour, want: -864_000, wrong: true},
		"another node's clock is wrong": {nodes: []time.Duration{time.Hour, 0, time.Hour}},
		"both are ahead":                {nodes: []time.Duration{time.Hour, time.Hour, time.Hour}, own: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger, logged := logtest.NewNullLogger()
				clock := newClock(logger, prometheus.NewRegistry(), func() time.Time { return time.Now().Add(c.own) })
				require.False(t, clock.wrong(), "before the first comparison")
				reads := 0
				require.NoError(t, clock.compare(t.Context(), func(context.Context) (time.Time, error) {
					reads++
					return time.Now().Add(c.nodes[reads-1]), nil
				}))
				require.InDelta(t, c.want, testutil.ToFloat64(clock.difference), .001)
				require.Equal(t, c.wrong, clock.wrong())
				if c.wrong {
					require.ErrorContains(t, clock.error(), "NTP")
					require.Contains(t, logged.LastEntry().Message, "pausing writes")
				}
			})
		})
	}
}

// Writes wait from the moment at which the clock is set until it is right.
func TestNothingIsWrittenWhileTheClockIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		logger, _ := logtest.NewNullLogger()
		clock := newClock(logger, prometheus.NewRegistry(), now)
		cluster := func(context.Context) (time.Time, error) { return time.Now(), nil }
		require.NoError(t, clock.compare(t.Context(), cluster))
		exec := executor.New(executor.Options{MaxInFlight: 1, RetryRate: 1, Hold: clock.wrong}, logger, prometheus.NewRegistry(), time.Now)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go clock.run(ctx, cluster)

		set.Store(int64(45 * time.Minute))
		require.True(t, clock.wrong(), "before the next comparison")
		var written atomic.Bool
		go func() {
			_ = exec.Write(ctx, "telemetry_by_device_day", 1, func(context.Context) error { written.Store(true); return nil })
		}()
		time.Sleep(time.Hour)
		require.False(t, written.Load())
		set.Store(0)
		time.Sleep(2 * time.Second)
		require.True(t, written.Load())

		unreachable := errors.New("down")
		require.ErrorIs(t, clock.compare(ctx, func(context.Context) (time.Time, error) { return time.Time{}, unreachable }), unreachable)
		require.False(t, clock.wrong(), "the last comparison counts")
	})
}
