package cassandra

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// ErrNotConnected is the error of a connector that has not reached the cluster yet.
var ErrNotConnected = errors.New("cassandra has not been reached yet")

// connectPause is the time between two attempts to connect.
const connectPause = time.Second

// Connector opens a store once, and waits for a cluster that is not available yet. It is the one owner of the store: it
// is safe for concurrent use, and every part of a program that needs the store asks the connector for it.
type Connector struct {
	open  func(context.Context) (*Store, error)
	note  func(error)
	turn  chan struct{} // held by the caller that connects
	store atomic.Pointer[Store]
}

// NewConnector makes a connector that opens the store with open, for example a call of Open. After each attempt it calls
// note with the result, for logs and metrics.
func NewConnector(open func(context.Context) (*Store, error), note func(error)) *Connector {
	return &Connector{open: open, note: note, turn: make(chan struct{}, 1)}
}

// Wait returns the store, and connects first if no caller has. It retries while the cluster is unavailable. It fails
// when a retry cannot help, and when ctx ends: then with the error of the last attempt, if there was one.
func (c *Connector) Wait(ctx context.Context) (*Store, error) {
	if store, ok := c.Get(); ok {
		return store, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, opError("connect to Cassandra", ctx.Err())
	}
	for {
		if store, ok := c.Get(); ok { // another caller connected
			return store, nil
		}
		store, err := c.open(ctx)
		if ctx.Err() == nil || err == nil {
			c.note(err)
		}
		if err == nil {
			c.store.Store(store)
			return store, nil
		}
		if ReasonOf(err).Advice() == GiveUp {
			return nil, err
		}
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Connect is Wait with a single attempt.
func (c *Connector) Connect(ctx context.Context) (*Store, error) {
	if store, ok := c.Get(); ok {
		return store, nil
	}
	store, err := c.open(ctx)
	if err == nil {
		c.store.Store(store)
	}
	return store, err
}

// Get returns the store if it is connected. It does not wait.
func (c *Connector) Get() (*Store, bool) {
	store := c.store.Load()
	return store, store != nil
}

// Ready returns an error if the store is not connected, or if the cluster does not answer at the level of writes.
func (c *Connector) Ready(ctx context.Context) error {
	store, ok := c.Get()
	if !ok {
		return ErrNotConnected
	}
	return store.Ready(ctx)
}
