package live

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// source counts reads, and returns a row whose fleet is the number of the read.
type source struct {
	reads atomic.Int32
	err   atomic.Value
}

func (s *source) read(context.Context, string) ([]cassandra.Telemetry, error) {
	n := s.reads.Add(1)
	if err, ok := s.err.Load().(error); ok {
		return nil, err
	}
	return []cassandra.Telemetry{{SpeedKmh: ptr(float64(n))}}, nil
}

func ptr[T any](v T) *T { return &v }

func TestSubscribersOfAFleetShareItsReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := NewBroadcaster(s.read, time.Second, time.Second)
		first, cancelFirst := b.Subscribe("a")
		second, cancelSecond := b.Subscribe("a")
		assert.Len(t, (<-first).Rows, 1)
		time.Sleep(9500 * time.Millisecond)
		assert.Equal(t, int32(10), s.reads.Load(), "one read each second")
		assert.Equal(t, 10.0, *(<-second).Rows[0].SpeedKmh, "a slow subscriber gets the newest snapshot")
		cancelFirst()
		time.Sleep(5 * time.Second)
		assert.Equal(t, int32(15), s.reads.Load(), "a subscriber is left")
		cancelSecond()
		time.Sleep(5 * time.Second)
		assert.Equal(t, int32(15), s.reads.Load(), "no subscriber is left")
		assert.Empty(t, b.feeds)
		third, cancel := b.Subscribe("a")
		assert.Equal(t, 16.0, *(<-third).Rows[0].SpeedKmh, "the fleet is read again")
		cancel()
		b.Close()
	})
}

func TestFailedReadsReachSubscribersAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		s.err.Store(errors.New("down"))
		b := NewBroadcaster(s.read, time.Second, time.Second)
		snapshots, cancel := b.Subscribe("a")
		defer cancel()
		assert.EqualError(t, (<-snapshots).Err, "down")
		assert.Equal(t, int32(maxFailures), s.reads.Load())
		b.Close()
	})
}

func TestReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBroadcaster(func(ctx context.Context, _ string) ([]cassandra.Telemetry, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, time.Second, 100*time.Millisecond)
		snapshots, cancel := b.Subscribe("a")
		defer cancel()
		assert.ErrorIs(t, (<-snapshots).Err, context.DeadlineExceeded)
		b.Close()
	})
}

func TestCloseEndsSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := NewBroadcaster(s.read, time.Second, time.Second)
		snapshots, cancel := b.Subscribe("a")
		<-snapshots
		b.Close()
		_, open := <-snapshots
		assert.False(t, open)
		cancel() // after Close
		late, cancelLate := b.Subscribe("a")
		_, open = <-late
		assert.False(t, open, "a closed broadcaster accepts no subscriber")
		cancelLate()
	})
}
