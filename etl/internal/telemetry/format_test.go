package telemetry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestFormatNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 80: "80", 97.25: "97.3", -4.04: "-4", 3725.4: "3725.4"} {
		assert.Equal(t, want, telemetry.FormatNumber(v))
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 59_400 * time.Millisecond: "59 s", 59_500 * time.Millisecond: "1 min", 80 * time.Second: "1 min 20 s",
		1499 * time.Millisecond: "1 s", 61 * time.Second: "1 min 1 s", 3660 * time.Second: "1 h 1 min", 51 * time.Hour: "2 d 3 h",
		time.Hour: "1 h", time.Hour + 30*time.Second: "1 h", 3725 * time.Second: "1 h 2 min", 25 * time.Hour: "1 d 1 h", 48 * time.Hour: "2 d",
	} {
		assert.Equal(t, want, telemetry.FormatDuration(d))
	}
}
