package reader

import (
	"maps"
	"slices"
	"sync"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// maxStatements is how many statements a Cost keeps in full.
const maxStatements = 10

// Cost accumulates the cost of one query. It is safe for concurrent use; its fields may be read once the query is done.
type Cost struct {
	mu sync.Mutex
	cassandra.ReadTotals
	CacheHits   int // reads that the cache answered
	SharedReads int // reads that joined an equal read in progress
}

// CoordinatorNames returns the nodes that answered, sorted.
func (c *Cost) CoordinatorNames() []string { return slices.Sorted(maps.Keys(c.Coordinators)) }

func (c *Cost) add(f cassandra.ReadTotals) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Partitions += f.Partitions
	c.Pages += f.Pages
	c.Rows += f.Rows
	c.Retries += f.Retries
	if c.Coordinators == nil {
		c.Coordinators = map[string]int{}
	}
	for node, n := range f.Coordinators {
		c.Coordinators[node] += n
	}
	kept := min(max(maxStatements-len(c.Statements), 0), len(f.Statements))
	c.Statements = append(c.Statements, f.Statements[:kept]...)
	c.More += f.More + len(f.Statements) - kept
}

func (c *Cost) addHit() {
	c.mu.Lock()
	c.CacheHits++
	c.mu.Unlock()
}

func (c *Cost) addShared() {
	c.mu.Lock()
	c.SharedReads++
	c.mu.Unlock()
}
