package settings

import (
	"fmt"
	"slices"
	"strings"
)

// Access is the set of fleets that a data source may read. The zero value allows every fleet.
type Access struct{ fleets []string }

// NewAccess allows the named fleets, or every fleet when none is named.
func NewAccess(fleets ...string) Access {
	fleets = slices.Sorted(slices.Values(fleets))
	return Access{slices.Compact(fleets)}
}

// Restricted reports whether the data source may read only named fleets.
func (a Access) Restricted() bool { return len(a.fleets) > 0 }

// Fleets returns the allowed fleets, sorted; none when access is not restricted.
func (a Access) Fleets() []string { return slices.Clone(a.fleets) }

// Allows reports whether the data source may read a fleet.
func (a Access) Allows(fleet string) bool {
	if !a.Restricted() {
		return true
	}
	_, found := slices.BinarySearch(a.fleets, fleet)
	return found
}

// Check returns a *ForbiddenError for the first fleet that the data source may not read.
func (a Access) Check(fleets []string) error {
	for _, fleet := range fleets {
		if !a.Allows(fleet) {
			return Forbidden("fleet %q: not allowed for this data source (allowed: %s)", fleet, strings.Join(a.fleets, ", "))
		}
	}
	return nil
}

// ForbiddenError rejects a request that the settings do not allow.
type ForbiddenError struct{ message string }

func (e *ForbiddenError) Error() string { return e.message }

// Forbidden formats a *ForbiddenError.
func Forbidden(format string, args ...any) error {
	return &ForbiddenError{fmt.Sprintf(format, args...)}
}
