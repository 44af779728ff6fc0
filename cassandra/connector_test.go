package cassandra

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errUnavailable = &Error{Op: "connect to Cassandra", Reason: ReasonNoHosts, Err: errors.New("no host")}

func TestConnectorRetriesUntilTheClusterAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want, attempts, noted := &Store{}, 0, []error{}
		c := NewConnector(func(context.Context) (*Store, error) {
			if attempts++; attempts < 4 {
				return nil, errUnavailable
			}
			return want, nil
		}, func(err error) { noted = append(noted, err) })
		require.ErrorIs(t, c.Ready(t.Context()), ErrNotConnected)
		_, ok := c.Get()
		require.False(t, ok)

		started := time.Now()
		store, err := c.Wait(t.Context())
		require.NoError(t, err)
		require.Same(t, want, store)
		require.Equal(t, 3*connectPause, time.Since(started))
		require.Equal(t, []error{errUnavailable, errUnavailable, errUnavailable, nil}, noted)
		store, ok = c.Get()
		require.True(t, ok)
		require.Same(t, want, store)
	})
}

func TestConnectorConnectsOnceForAllCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want, attempts := &Store{}, 0
		c := NewConnector(func(context.Context) (*Store, error) {
			attempts++
			time.Sleep(time.Minute)
			return want, nil
		}, func(error) {})
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				store, err := c.Wait(t.Context())
				require.NoError(t, err)
				require.Same(t, want, store)
			})
		}
		callers.Wait()
		require.Equal(t, 1, attempts)
	})
}

func TestConnectorFailsWhenRetriesCannotHelp(t *testing.T) {
	wrong := &Error{Op: "connect to Cassandra", Reason: ReasonUnauthorized, Err: errors.New("bad password")}
	c := NewConnector(func(context.Context) (*Store, error) { return nil, wrong }, func(error) {})
	_, err := c.Wait(t.Context())
	require.Equal(t, wrong, err)
}

func TestConnectorReturnsTheLastErrorAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewConnector(func(context.Context) (*Store, error) { return nil, errUnavailable }, func(error) {})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := c.Wait(ctx)
		require.Equal(t, errUnavailable, err)
	})
}

func TestConnectorPassesTheTurnWhenACallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want, available := &Store{}, false
		c := NewConnector(func(context.Context) (*Store, error) {
			if available {
				return want, nil
			}
			return nil, errUnavailable
		}, func(error) {})
		impatient, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := c.Wait(impatient)
			require.Equal(t, errUnavailable, err)
		})
		synctest.Wait()
		callers.Go(func() {
			store, err := c.Wait(t.Context())
			require.NoError(t, err)
			require.Same(t, want, store)
		})
		synctest.Wait()
		available = true
		cancel()
		callers.Wait()
	})
}
