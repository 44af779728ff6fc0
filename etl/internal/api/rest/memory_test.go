package rest

import (
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestMemoryIsSharedBetweenSenders(t *testing.T) {
	m := NewMemory(100, "requests", prometheus.NewRegistry())
	status := func(err error) int {
		problem := (*Problem)(nil)
		require.ErrorAs(t, err, &problem)
		require.Positive(t, problem.RetryAfter)
		return problem.Kind.Status
	}
	require.NoError(t, m.Reserve("a", 30))
	require.NoError(t, m.Reserve("a", 20))
	require.Equal(t, http.StatusTooManyRequests, status(m.Reserve("a", 1)), "half of it")
	require.NoError(t, m.Reserve("b", 40))
	require.Equal(t, http.StatusServiceUnavailable, status(m.Reserve("c", 20)))
	require.NoError(t, m.Reserve("c", 10))
	m.Release("a", 50)
	require.NoError(t, m.Reserve("c", 40))
	m.Release("b", 40)
	m.Release("c", 50)
	require.Zero(t, m.used)
	require.Empty(t, m.bySender)
}
