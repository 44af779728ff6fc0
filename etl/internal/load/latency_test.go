package load

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// within tells whether a time is another one but for the hundredth that two digits leave open.
func within(t *testing.T, want, got time.Duration) {
	t.Helper()
	assert.InEpsilon(t, want, got, 0.01)
}

func TestLatencyQuantiles(t *testing.T) {
	l := newLatency()
	for i := range 1000 { // in no order
		l.record("history", time.Duration(i*7%1000+1)*time.Millisecond)
	}
	l.record("latest", 3*time.Millisecond)
	tables := l.Tables()
	assert.Len(t, tables, 2, "a table that was not written is not there")
	q := tables["history"]
	assert.Equal(t, int64(1000), q.Writes)
	within(t, 500*time.Millisecond, q.P50)
	within(t, 950*time.Millisecond, q.P95)
	within(t, 990*time.Millisecond, q.P99)
	within(t, time.Second, q.Max)
	assert.Equal(t, int64(1), tables["latest"].Writes)
	within(t, 3*time.Millisecond, tables["latest"].P99)
}

func TestLatencyIsTakenOnce(t *testing.T) {
	l := newLatency()
	l.record("history", time.Millisecond)
	taken := l.Take()
	l.record("history", 2*time.Millisecond)
	assert.Equal(t, int64(1), taken["history"].TotalCount(), "what comes later is no part of what was taken")
	assert.Equal(t, int64(2000), l.Take()["history"].Max()/10*10)
	assert.Empty(t, l.Take())
}

func TestLatencyLosesNoWrite(t *testing.T) {
	for name, c := range map[string]struct{ took, want time.Duration }{
		"the quickest":                  {time.Microsecond, time.Microsecond},
		"the slowest":                   {10 * time.Minute, 10 * time.Minute},
		"a day counts as the slowest":   {24 * time.Hour, 10 * time.Minute},
		"a second less than the bound":  {9*time.Minute + 59*time.Second, 9*time.Minute + 59*time.Second},
		"microseconds are told apart":   {17 * time.Microsecond, 17 * time.Microsecond},
		"what a write usually takes":    {1234 * time.Microsecond, 1234 * time.Microsecond},
		"the nodes' own write timeouts": {2 * time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLatency()
			l.record("t", c.took)
			q := l.Tables()["t"]
			assert.Equal(t, int64(1), q.Writes)
			within(t, c.want, q.Max)
			within(t, c.want, q.P50)
		})
	}
	l := newLatency()
	l.record("t", 0)
	assert.Equal(t, int64(1), l.Tables()["t"].Writes, "less than a microsecond")
}
