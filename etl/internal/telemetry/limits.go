package telemetry

import (
	"strings"
	"time"
)

// The bounds of a record that makes sense. They are part of the contract with senders, so they are not settings.
const (
	Retention    = 30 * 24 * time.Hour // history is kept for so long; an older record is refused
	MaxAhead     = 5 * time.Minute     // how far a device's clock may run ahead of ours
	MaxSpeedKmh  = 400                 // above that a reading is an error, not a vehicle
	MinTempC     = -100
	MaxTempC     = 200
	MaxAccuracyM = 100_000 // a fix that may be further off than that says nothing
	MaxNameLen   = 128     // device, fleet and zone names, in bytes
	MaxRawLen    = 65_536  // a raw record, in bytes
)

// ValidName tells whether s is 1 to MaxNameLen characters of A-Za-z0-9._:-
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

// PlatformFleet tells whether a fleet is the platform's own, such as the canary's: nothing is derived from it.
func PlatformFleet(name string) bool { return strings.HasPrefix(name, "_") }
