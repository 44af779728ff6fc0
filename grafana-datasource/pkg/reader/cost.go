package reader

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

type costKey struct{}

// counter counts the reads of one query.
type counter struct {
	stats        *cassandra.ReadStats
	hits, shared atomic.Int64
}

// Cost is the cost of one query.
type Cost struct {
	cassandra.ReadTotals
	CacheHits   int // reads that the cache answered
	SharedReads int // reads that joined an equal read in progress
}

// CoordinatorNames returns the nodes that answered, sorted.
func (c *Cost) CoordinatorNames() []string { return slices.Sorted(maps.Keys(c.Coordinators)) }

// WithCost returns a context whose reads are counted, and a function that returns their cost so far.
func WithCost(ctx context.Context) (context.Context, func() Cost) {
	ctx, stats := cassandra.WithReadStats(ctx)
	c := &counter{stats: stats}
	return context.WithValue(ctx, costKey{}, c), func() Cost {
		return Cost{ReadTotals: c.stats.Totals(), CacheHits: int(c.hits.Load()), SharedReads: int(c.shared.Load())}
	}
}

func addHit(ctx context.Context) {
	if c, ok := ctx.Value(costKey{}).(*counter); ok {
		c.hits.Add(1)
	}
}

func addShared(ctx context.Context) {
	if c, ok := ctx.Value(costKey{}).(*counter); ok {
		c.shared.Add(1)
	}
}
