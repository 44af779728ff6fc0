package replay

import (
	"fmt"
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// CheckPace returns an error if a trace would run into the future, where its records are rejected. firstMs and lastMs are
// the event times of its first and last record as they are sent, in Unix milliseconds; start is when the first is sent. At
// a speed above 1, event time gains on the clock, so the trace must start in the past. The error says how far it would get
// ahead, and which start or speed avoids that.
func CheckPace(firstMs, lastMs int64, start time.Time, speed float64) error {
	if err := checkSpeed(speed); err != nil {
		return err
	}
	limit := float64(telemetry.MaxAhead.Milliseconds())
	span := float64(lastMs) - float64(firstMs)
	atStart := float64(firstMs) - float64(start.UnixMilli())
	ahead := max(atStart, atStart+span-span/speed) // it changes linearly during the replay
	if ahead <= limit {
		return nil
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	remedy := fmt.Sprintf("start with --start-at %s or before", at(firstMs-int64(math.Ceil(ahead-limit))))
	if margin := limit - atStart; margin >= 0 {
		// The gain, span - span/speed, must not exceed the margin.
		remedy += fmt.Sprintf(", or use --speed %.2f or less", math.Floor(100/(1-margin/span))/100)
	}
	return fmt.Errorf("replay %s to %s with --speed %g: it would run %s ahead of the clock, and records more than %s ahead are rejected: %s",
		at(firstMs), at(lastMs), speed, milliseconds(ahead).Round(time.Second), telemetry.MaxAhead, remedy)
}

// milliseconds returns a duration, limited to the longest one.
func milliseconds(ms float64) time.Duration {
	ns := ms * float64(time.Millisecond)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}
