package executor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// within checks a duration up to the hundredth that two digits leave open.
func within(t *testing.T, want time.Duration, seconds float64) {
	t.Helper()
	assert.InEpsilon(t, want.Seconds(), seconds, 0.01)
}

func TestLatencyQuantiles(t *testing.T) {
	l := newLatency()
	for i := range 1000 { // in no order
		l.record("history", time.Duration(i*7%1000+1)*time.Millisecond)
	}
	l.record("latest", 3*time.Millisecond)
	tables := l.writes()
	assert.Len(t, tables, 2, "only tables that were written")
	q := tables["history"]
	assert.Equal(t, int64(1000), q.Writes)
	within(t, 500*time.Millisecond, q.P50)
	within(t, 950*time.Millisecond, q.P95)
	within(t, 990*time.Millisecond, q.P99)
	within(t, time.Second, q.Max)
	assert.Equal(t, int64(1), tables["latest"].Writes)
	within(t, 3*time.Millisecond, tables["latest"].P99)
}

func TestLatencyCountsEveryWrite(t *testing.T) {
	for name, c := range map[string]struct{ took, want time.Duration }{
		"the quickest":                   {time.Microsecond, time.Microsecond},
		"the slowest":                    {10 * time.Minute, 10 * time.Minute},
		"a day counts as ten minutes":    {24 * time.Hour, 10 * time.Minute},
		"just below the bound":           {9*time.Minute + 59*time.Second, 9*time.Minute + 59*time.Second},
		"a few microseconds":             {17 * time.Microsecond, 17 * time.Microsecond},
		"a typical write":                {1234 * time.Microsecond, 1234 * time.Microsecond},
		"the write timeout of the nodes": {2 * time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLatency()
			l.record("t", c.took)
			q := l.writes()["t"]
			assert.Equal(t, int64(1), q.Writes)
			within(t, c.want, q.Max)
			within(t, c.want, q.P50)
		})
	}
	l := newLatency()
	l.record("t", 0)
	assert.Equal(t, int64(1), l.writes()["t"].Writes, "less than a microsecond")
}
