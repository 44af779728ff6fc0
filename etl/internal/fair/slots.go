package fair

import (
	"context"
	"errors"
	"sync"
)

// Slots bound what is in progress, such as reads, or bytes in memory. A key holds at most as much as it leaves free: one
// key gets half, a second one half of the rest, and so on. Where keys wait, they are served in turn. It is safe for
// concurrent use.
type Slots struct {
	capacity int64
	most     int // callers of one key that wait; 0: any number

	mu      sync.Mutex
	used    int64
	held    map[string]int64
	waiting *Queue[*waiter]
}

type waiter struct {
	n       int64
	granted chan struct{}
}

// The errors of Acquire, besides that of its ctx.
var (
	ErrWaiting = errors.New("too many others of the same key wait")
	ErrLimit   = errors.New("the key holds its share") // joined with the error of ctx
)

// NewSlots makes slots. Beyond most callers of one key that wait, others get an error; 0 is without a bound.
func NewSlots(capacity int64, most int) *Slots {
	return &Slots{capacity: capacity, most: most, held: map[string]int64{}, waiting: NewQueue[*waiter](1)}
}

// Acquire waits until a key gets n slots, at most all of them. Without an error, Release must follow.
func (s *Slots) Acquire(ctx context.Context, key string, n int64) error {
	s.mu.Lock()
	if s.most > 0 && s.waiting.LenOf(key) >= s.most {
		s.mu.Unlock()
		return ErrWaiting
	}
	w := &waiter{n: n, granted: make(chan struct{})}
	s.waiting.Push(key, 1, w)
	s.grant()
	s.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.granted: // at the same moment
		s.release(key, n)
		return ctx.Err()
	default:
	}
	s.waiting.Remove(key, func(other *waiter) bool { return other == w })
	err := ctx.Err()
	if s.held[key] > 0 {
		err = errors.Join(ErrLimit, err)
	}
	s.grant()
	return err
}

// Release returns slots.
func (s *Slots) Release(key string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(key, n)
}

func (s *Slots) release(key string, n int64) {
	s.used -= n
	if s.held[key] -= n; s.held[key] == 0 {
		delete(s.held, key)
	}
	s.grant()
}

// grant serves the keys that wait and are within their share. Where the next one holds nothing and needs more than is free,
// no key behind it is served, so that it gets its turn.
func (s *Slots) grant() {
	blocked := false
	for {
		var to string
		w, ok := s.waiting.PopIf(func(key string, w *waiter) bool {
			fits := s.held[key]+w.n <= s.capacity-s.used
			blocked = blocked || !fits && s.held[key] == 0
			to = key
			return fits && !blocked
		})
		if !ok {
			return
		}
		s.used += w.n
		s.held[to] += w.n
		close(w.granted)
	}
}

// Used returns the number of slots that are held.
func (s *Slots) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Waiting returns the number of callers that wait.
func (s *Slots) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting.Len()
}
