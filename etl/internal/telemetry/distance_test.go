package telemetry_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestDistance(t *testing.T) {
	for name, c := range map[string]struct{ lat1, lon1, lat2, lon2, want, within float64 }{
		"same position":              {31.5, 120.25, 31.5, 120.25, 0, 0},
		"London to Paris":            {51.5074, -0.1278, 48.8566, 2.3522, 343.5, 1},
		"New York to London":         {40.7128, -74.0060, 51.5074, -0.1278, 5570, 5},
		"Sydney to Auckland":         {-33.8688, 151.2093, -36.8485, 174.7633, 2156, 5},
		"a quarter meridian":         {0, 0, 90, 0, 10_007.557, 0.001},
		"a quarter equator":          {0, 0, 0, 90, 10_007.557, 0.001},
		"across the pole":            {80, 0, 80, 180, 20 * 111.19508, 0.01},
		"across the date line":       {0, 179.5, 0, -179.5, 111.19508, 0.001},
		"same pole, other longitude": {90, 0, 90, 135, 0, 1e-9},
		"to the antipode":            {31.5, 120.25, -31.5, -59.75, 20_015.1147, 0.001},
		"one meter":                  {45, 7, 45 + 1/111_195.08, 7, 0.001, 1e-7},
	} {
		t.Run(name, func(t *testing.T) {
			assert.InDelta(t, c.want, telemetry.DistanceKm(c.lat1, c.lon1, c.lat2, c.lon2), c.within)
			assert.InDelta(t, c.want, telemetry.DistanceKm(c.lat2, c.lon2, c.lat1, c.lon1), c.within, "and back")
		})
	}
}
