package cluster

import (
	"context"
	"fmt"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// lock locks the cluster until unlock is called. Test packages run in parallel: the second one finds the nodes running.
func (c *Cluster) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = process.Lock(ctx, c.dir, func(holder string) {
		c.printf("waiting for process %s, which changes the cluster in %s\n", holder, c.dir)
	})
	if err != nil {
		return nil, fmt.Errorf("lock cluster: %w", err)
	}
	return unlock, nil
}
