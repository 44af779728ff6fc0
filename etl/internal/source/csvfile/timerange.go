package csvfile

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
)

// TimeRange reads the files once and returns the smallest and largest event time of their n records, in Unix milliseconds
// before any shift; both are 0 without records. Lines that can't be parsed don't count. Records with values out of bounds
// do, so one wrong clock can extend the range. Standard input is an error, since it can't be read twice.
func TimeRange(ctx context.Context, o Options) (minMs, maxMs, n int64, err error) {
	o.Shift = 0
	in, err := newInputs(o)
	if err != nil {
		return 0, 0, 0, err
	}
	if in.fromStdin() {
		return 0, 0, 0, errors.New("find the time range of standard input: it can be read only once: save it to a file first")
	}
	minMs, maxMs = math.MaxInt64, math.MinInt64
	err = in.each(ctx, fromStart, new(atomic.Int64), func(c chunk) error {
		for i := range c.items {
			minMs, maxMs = min(minMs, c.items[i].TimeMs), max(maxMs, c.items[i].TimeMs)
		}
		n += int64(len(c.items))
		return nil
	})
	if err != nil || n == 0 {
		return 0, 0, 0, err
	}
	return minMs, maxMs, n, nil
}
