package memory

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newBudget() (*Budget, prometheus.Gauge) {
	used := prometheus.NewGauge(prometheus.GaugeOpts{})
	return NewBudget(16<<20, used), used
}

func open(t *testing.T, b *Budget) *Account {
	t.Helper()
	a, err := b.Open(t.Context())
	require.NoError(t, err)
	return a
}

func TestARequestHoldsAtMostHalf(t *testing.T) {
	b, used := newBudget()
	a := open(t, b)
	require.NoError(t, a.Take(t.Context(), 8<<20-1))
	assert.Equal(t, 8.0*(1<<20), testutil.ToFloat64(used))
	err := a.Take(t.Context(), 1)
	require.EqualError(t, err, "query memory: the request needs more than 8 MB, half of the data source's; choose fewer rows, columns, vehicles or fleets, "+
		"or a shorter time range; an administrator can raise Query memory in the data source")
	require.Error(t, a.Take(t.Context(), 1<<62), "without an overflow")
	a.Close()
	assert.Zero(t, testutil.ToFloat64(used))
}

func TestPartsReleaseWhatTheyDoNotKeep(t *testing.T) {
	b, used := newBudget()
	request := open(t, b)
	ctx := With(t.Context(), request.Part())
	require.NoError(t, Take(ctx, 4<<20))
	scoped, release := Scope(ctx)
	require.NoError(t, Take(scoped, 3<<20))
	require.Error(t, Take(ctx, 2<<20), "the request is the sum of its parts")
	assert.Equal(t, 0, Left(ctx))
	release()
	assert.Equal(t, 3<<20, Left(ctx), "in whole mebibytes")
	require.NoError(t, Take(ctx, 2<<20))

	query := request.Part()
	require.NoError(t, query.Take(ctx, 1<<20))
	query.Keep(100)
	query.Keep(1 << 20) // it never grows
	assert.Equal(t, 6.25*(1<<20), testutil.ToFloat64(used))
	request.Close()
	assert.Zero(t, testutil.ToFloat64(used))
}

func TestLargeRequestsFailWhileOthersHoldAll(t *testing.T) {
	b, _ := newBudget()
	first, second, third := open(t, b), open(t, b), open(t, b)
	require.NoError(t, first.Take(t.Context(), 7<<20))
	require.NoError(t, second.Take(t.Context(), 7<<20))
	require.ErrorContains(t, third.Take(t.Context(), 3<<20), "query memory: all 16 MB of the data source are in use; try again, or choose fewer rows")
	require.NoError(t, third.Take(t.Context(), 1<<20))
	first.Close()
	require.NoError(t, third.Take(t.Context(), 6<<20))
}

func TestSmallRequestsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := newBudget()
		first, second := open(t, b), open(t, b)
		require.NoError(t, first.Take(t.Context(), 8<<20-1))
		require.NoError(t, second.Take(t.Context(), 8<<20-1))

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := b.Open(short)
		require.ErrorContains(t, err, "all 16 MB of the data source are in use")
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = b.Open(canceled)
		require.ErrorIs(t, err, context.Canceled)

		go func() {
			time.Sleep(time.Minute)
			first.Close()
		}()
		start := time.Now()
		waiting := open(t, b)
		require.NoError(t, waiting.Take(t.Context(), 1<<20))
		assert.Equal(t, time.Minute, time.Since(start))
	})
}

func TestReadsNeverWait(t *testing.T) {
	b, used := newBudget()
	first, second := open(t, b), open(t, b)
	require.NoError(t, first.Take(t.Context(), 8<<20-1))
	require.NoError(t, second.Take(t.Context(), 8<<20-1))
	read := b.OpenRead()
	require.NoError(t, read.Take(t.Context(), 1<<20), "the first bytes are free")
	require.ErrorContains(t, read.Take(t.Context(), 1), "in use")
	first.Close()
	require.NoError(t, read.Take(t.Context(), 1))
	read.Close()
	second.Close()
	assert.Zero(t, testutil.ToFloat64(used))
}

func TestWithoutAnAccountNothingIsBounded(t *testing.T) {
	ctx, release := Scope(t.Context())
	require.NoError(t, Take(ctx, 1<<40))
	assert.Greater(t, Left(ctx), 1<<40)
	release()
}
