package replay

import (
	"fmt"
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// CheckPace tells whether a trace can be played without running into the future, where its records would be refused.
// firstMs and lastMs are the event times of its first and last record as they are played, in Unix milliseconds; start is
// when the first is sent. At a speed above 1 the events gain on the clock, so they have to start in the past. The error
// says how far they would get ahead, and what start or speed avoids that.
func CheckPace(firstMs, lastMs int64, start time.Time, speed float64) error {
	if err := checkSpeed(speed); err != nil {
		return err
	}
	limit := float64(telemetry.MaxAhead.Milliseconds())
	span := float64(lastMs) - float64(firstMs)
	atStart := float64(firstMs) - float64(start.UnixMilli())
	ahead := max(atStart, atStart+span-span/speed) // it changes evenly while the trace is played
	if ahead <= limit {
		return nil
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	remedy := fmt.Sprintf("start with --start-at %s or before", at(firstMs-int64(math.Ceil(ahead-limit))))
	if room := limit - atStart; room >= 0 {
		// Less than room is gained while span - span/speed is less.
		remedy += fmt.Sprintf(", or play with --speed %.2f or less", math.Floor(100/(1-room/span))/100)
	}
	return fmt.Errorf("replay %s to %s with --speed %g: it would run %s ahead of the clock, and what is more than %s ahead is refused: %s",
		at(firstMs), at(lastMs), speed, milliseconds(ahead).Round(time.Second), telemetry.MaxAhead, remedy)
}

// milliseconds is a duration that may be longer than can be told; it is then as long as can be told.
func milliseconds(ms float64) time.Duration {
	ns := ms * float64(time.Millisecond)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
