package app

import (
	"context"
	"fmt"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Goals of memory are where the runtime begins to collect harder, in bytes. What the pipeline itself holds is bounded well below the
// least; that goal keeps garbage from doubling it. What grows beside is the state of devices: a goal close to what is held would have
// the runtime do nothing but collect.
const (
	leastMemory  = 192 << 20
	memoryStep   = 16 << 20 // the goal moves in such steps
	memoryLooked = time.Second
)

// memoryGoal is the goal for so many bytes that were alive at the last collection.
func memoryGoal(live uint64) uint64 {
	return max(leastMemory, (2*live+memoryStep-1)/memoryStep*memoryStep)
}

// keepMemoryGoal has the goal follow what is held until ctx ends, below nine tenths of what the control group may take.
// GOMEMLIMIT in the environment is left as it is.
func keepMemoryGoal(ctx context.Context) error {
	own := memlimit.ApplyRatio(memlimit.FromCgroup, 0.9)
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	_, err := memlimit.Set(memlimit.WithRatio(1), memlimit.WithRefreshInterval(ctx, memoryLooked), memlimit.WithProvider(func() (uint64, error) {
		metrics.Read(sample)
		goal := memoryGoal(sample[0].Value.Uint64())
		if most, err := own(); err == nil { // else there is none, or it can't be told
			goal = min(goal, most)
		}
		return goal, nil
	}))
	if err != nil {
		return fmt.Errorf("set the goal of memory: %w", err)
	}
	return nil
}
