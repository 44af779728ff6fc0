package telemetry_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestRejectShortensLongValuesBetweenCharacters(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"short":                        {"abc", "abc"},
		"just readable":                {strings.Repeat("a", 64), strings.Repeat("a", 64)},
		"one byte longer":              {strings.Repeat("a", 65), strings.Repeat("a", 64) + "…"},
		"cut between characters":       {strings.Repeat("a", 61) + "无锡", strings.Repeat("a", 61) + "无…"},
		"cut after a character's byte": {strings.Repeat("a", 63) + "无锡", strings.Repeat("a", 63) + "…"},
		"cut before its last byte":     {strings.Repeat("a", 62) + "无锡", strings.Repeat("a", 62) + "…"},
		"an emoji's last byte":         {strings.Repeat("a", 61) + "🚚🚚", strings.Repeat("a", 61) + "…"},
		"bytes of no text":             {strings.Repeat("\xff", 100), "…"},
	} {
		t.Run(name, func(t *testing.T) {
			r := telemetry.Reject(telemetry.Malformed, telemetry.FieldLat, c.value, "fix it")
			assert.Equal(t, c.want, r.Value)
			assert.True(t, utf8.ValidString(r.Error()))
		})
	}
}

func TestRejectionError(t *testing.T) {
	for name, c := range map[string]struct {
		rejection *telemetry.Rejection
		want      string
	}{
		"a field with a value": {
			telemetry.Reject(telemetry.LatRange, telemetry.FieldLat, "91", "give degrees from -90 to 90"),
			`lat_range: lat "91": give degrees from -90 to 90`,
		},
		"a missing field has no value to show": {
			telemetry.Reject(telemetry.MissingField, telemetry.FieldDeviceID, "", "give it a value"),
			`missing_field: device_id: give it a value`,
		},
		"no single field": {
			telemetry.Reject(telemetry.TooLarge, "", "", "send at most 64 KiB"),
			`too_large: send at most 64 KiB`,
		},
		"control characters can't forge a log line": {
			telemetry.Reject(telemetry.BadID, telemetry.FieldZone, "a\nb", "fix it"),
			`bad_id: zone "a\nb": fix it`,
		},
	} {
		t.Run(name, func(t *testing.T) { assert.EqualError(t, c.rejection, c.want) })
	}
}

// The reasons are values of a metric label and part of the contract with senders.
func TestReasons(t *testing.T) {
	assert.ElementsMatch(t, []telemetry.Reason{
		"malformed", "missing_field", "bad_timestamp", "future", "too_old", "lat_range", "lon_range", "zero_position",
		"speed_range", "heading_range", "battery_range", "temp_range", "accuracy_range", "bad_id", "too_large", "unknown_fleet",
		"wrong_fleet", "unknown_device", "held_device", "too_late", "too_many_devices",
		"forbidden_fleet",
	}, telemetry.Reasons)
}
