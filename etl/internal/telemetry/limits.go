package telemetry

import (
	"strings"
	"time"
)

// The bounds of a valid record. They are part of the contract with senders, so they are not settings.
const (
	Retention    = 30 * 24 * time.Hour // of history; an older record is rejected
	MaxAhead     = 5 * time.Minute     // how far an event time may be ahead of the clock
	MaxSpeedKmh  = 400                 // a higher value is an error
	MinTempC     = -100
	MaxTempC     = 200
	MaxAccuracyM = 100_000 // a less accurate position is useless
	MaxNameLen   = 128     // of device, fleet and zone names, bytes
	MaxRawLen    = 65_536  // of a raw record, bytes
	MaxExcerpt   = 1024    // of a raw record that is too large, as it is kept, bytes
)

// ValidName reports whether s is 1 to MaxNameLen characters of A-Za-z0-9._:-
func ValidName(s string) bool {
	if s == "" || len(s) > MaxNameLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !nameByte[s[i]] {
			return false
		}
	}
	return true
}

var nameByte = func() (t [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-" {
		t[c] = true
	}
	return t
}()

// PlatformFleet reports whether a fleet belongs to the platform, such as the canary's. Platform fleets have no derived rows.
func PlatformFleet(name string) bool { return strings.HasPrefix(name, "_") }
