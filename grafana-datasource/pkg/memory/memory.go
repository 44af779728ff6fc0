// Package memory bounds the memory that the requests to one data source hold together: the rows that they read, and the
// frames that they return.
package memory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

const (
	// chunk is how many bytes an account reserves at once.
	chunk = 256 << 10
	// small is how many chunks a request may wait for. Beyond that it fails instead, because requests that wait for each
	// other would hold their memory until they time out.
	small = 8
	// readFree are the bytes of a read that need no reservation. The settings bound the number of reads.
	readFree = 1 << 20
)

// The approximate size of parts of frames, with their share of the encoded response.
const (
	CellBytes   = 48      // of a value
	SeriesBytes = 4 << 10 // of a frame, or a field with labels, beside its values
)

// Error reports that a request needs more memory than it may have.
type Error struct {
	Busy  bool // other requests hold the memory
	Limit int  // bytes
}

func (e *Error) Error() string {
	const remedy = "choose fewer rows, columns, vehicles or fleets, or a shorter time range; an administrator can raise Query memory in the data source"
	if e.Busy {
		return fmt.Sprintf("query memory: all %d MB of the data source are in use; try again, or %s", e.Limit>>20, remedy)
	}
	return fmt.Sprintf("query memory: the request needs more than %d MB, half of the data source's; %s", e.Limit>>20, remedy)
}

// Waited returns the error of a request that waited for memory of a budget of so many bytes, until its context ended with err.
func Waited(err error, bytes int) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Busy: true, Limit: bytes}
	}
	return err
}

// Budget is the memory of one data source.
type Budget struct {
	free  *semaphore.Weighted // chunks
	bytes int
	used  prometheus.Gauge
}

// NewBudget makes a budget. It adds the bytes in use to a gauge, which budgets may share.
func NewBudget(bytes int, used prometheus.Gauge) *Budget {
	bytes = max(bytes, 2*chunk)
	return &Budget{free: semaphore.NewWeighted(int64(bytes / chunk)), bytes: bytes, used: used}
}

// Account is the memory that a request, a query of it, or a read holds. It is safe for concurrent use. A nil account is not
// bounded.
type Account struct {
	budget *Budget
	parent *Account // of a part: the request, which reserves its memory
	most   int      // bytes that it may hold
	free   int      // bytes that need no reservation
	small  int      // chunks that it may wait for

	mu     sync.Mutex
	held   int // bytes
	chunks int // reserved
}

// Open opens the account of a request. It waits until the budget has a free chunk.
func (b *Budget) Open(ctx context.Context) (*Account, error) {
	a := &Account{budget: b, most: b.bytes / 2, small: small}
	return a, a.Take(ctx, 1)
}

// OpenRead opens the account of a read, which never waits: it may hold a slot that others wait for.
func (b *Budget) OpenRead() *Account { return &Account{budget: b, most: b.bytes / 2, free: readFree} }

// Part opens the account of a query of the request, or of a part of the query. The request holds their memory.
func (a *Account) Part() *Account {
	if a == nil {
		return nil
	}
	request := a
	if a.parent != nil {
		request = a.parent
	}
	return &Account{budget: a.budget, parent: request}
}

// Take adds bytes to the account. It returns an *Error if the account would hold more than it may, or if the budget is
// used up.
func (a *Account) Take(ctx context.Context, bytes int) error {
	if a == nil {
		return nil
	}
	if a.parent != nil {
		if err := a.parent.Take(ctx, bytes); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parent == nil {
		if bytes > a.most-a.held {
			return &Error{Limit: a.budget.bytes / 2}
		}
		if err := a.reserve(ctx, a.held+bytes); err != nil {
			return err
		}
	}
	a.held += bytes
	return nil
}

// Keep releases all but bytes.
func (a *Account) Keep(bytes int) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	surplus := max(a.held-bytes, 0)
	a.held -= surplus
	if a.parent != nil {
		a.parent.mu.Lock()
		defer a.parent.mu.Unlock()
		a.parent.held -= surplus
		a.parent.shrink()
		return
	}
	a.shrink()
}

// Close releases the memory of a request or read.
func (a *Account) Close() { a.Keep(0) }

// reserve reserves what the account lacks to hold bytes. The caller holds the lock.
func (a *Account) reserve(ctx context.Context, bytes int) error {
	lacking := a.wanted(bytes) - a.chunks
	if lacking <= 0 {
		return nil
	}
	if !a.budget.free.TryAcquire(int64(lacking)) {
		if a.chunks+lacking > a.small {
			return &Error{Busy: true, Limit: a.budget.bytes}
		}
		if err := a.budget.free.Acquire(ctx, int64(lacking)); err != nil {
			return Waited(err, a.budget.bytes)
		}
	}
	a.chunks += lacking
	a.budget.used.Add(float64(lacking * chunk))
	return nil
}

// shrink releases the chunks that the account no longer needs. The caller holds the lock.
func (a *Account) shrink() {
	if surplus := a.chunks - a.wanted(a.held); surplus > 0 {
		a.chunks -= surplus
		a.budget.free.Release(int64(surplus))
		a.budget.used.Sub(float64(surplus * chunk))
	}
}

func (a *Account) wanted(bytes int) int { return (max(bytes-a.free, 0) + chunk - 1) / chunk }

type accountKey struct{}

// With returns a context whose reads take their memory from an account.
func With(ctx context.Context, a *Account) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// Take takes bytes from the account of the context. Without an account it does nothing.
func Take(ctx context.Context, bytes int) error {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a.Take(ctx, bytes)
}

// Left returns how many bytes the request of the context can still take, in steps of a mebibyte, if the data source has them.
func Left(ctx context.Context) int {
	a, _ := ctx.Value(accountKey{}).(*Account)
	if a == nil {
		return math.MaxInt
	}
	if a.parent != nil {
		a = a.parent
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return (a.most - a.held) &^ (1<<20 - 1)
}

// Scope returns a context for reads whose rows a query drops early, and the function that releases their memory.
func Scope(ctx context.Context) (context.Context, func()) {
	a, _ := ctx.Value(accountKey{}).(*Account)
	part := a.Part()
	return With(ctx, part), part.Close
}
