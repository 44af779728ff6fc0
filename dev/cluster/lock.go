package cluster

import (
	"context"
	"fmt"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// lock keeps others from changing the cluster until unlock is called: test packages run side by side, and the second
// finds running what the first has started.
func (c *Cluster) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = process.Lock(ctx, c.dir, func(holder string) {
		c.printf("waiting for process %s, which is changing the cluster in %s\n", holder, c.dir)
	})
	if err != nil {
		return nil, fmt.Errorf("lock cluster: %w", err)
	}
	return unlock, nil
}
