package app

import (
	"context"
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The soft memory limit of the runtime follows the live heap. The pipeline itself stays well below the smallest limit, which
// keeps garbage from doubling it. The state of devices grows with their number: a fixed limit close to the live heap would
// make the runtime collect garbage all the time.
const (
	minMemoryLimit  = 192 << 20 // bytes
	memoryLimitStep = 16 << 20  // bytes
	memoryRefresh   = time.Second
)

// memoryLimit returns the limit in bytes for a live heap of live bytes.
func memoryLimit(live uint64) uint64 {
	return max(minMemoryLimit, (2*live+memoryLimitStep-1)/memoryLimitStep*memoryLimitStep)
}

// followLiveHeap adjusts the memory limit to the live heap until ctx ends. It stays below nine tenths of the limit of the
// control group. GOMEMLIMIT in the environment takes precedence.
func followLiveHeap(ctx context.Context) error {
	cgroup := memlimit.ApplyRatio(memlimit.FromCgroup, 0.9)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	_, err := memlimit.Set(memlimit.WithRatio(1), memlimit.WithRefreshInterval(ctx, memoryRefresh), memlimit.WithProvider(func() (uint64, error) {
		metrics.Read(sample)
		limit := memoryLimit(sample[0].Value.Uint64())
		if most, err := cgroup(); err == nil { // an error means no limit, or an unknown one
			limit = min(limit, most)
		}
		return limit, nil
	}))
	if err != nil {
		return fmt.Errorf("set the memory limit: %w", err)
	}
	return nil
}
