package pipeline

import "unique"

// names replaces the strings of records by interned ones. A record's strings are slices of the source's text, and a batch
// of records must not keep that whole text in memory. Fleets and geofences repeat from one record to the next.
type names struct{ fleet, zone string }

func (n *names) intern(item *Item) {
	item.Raw = ""
	item.DeviceID = unique.Make(item.DeviceID).Value()
	if item.FleetID != n.fleet {
		n.fleet = unique.Make(item.FleetID).Value()
	}
	if item.Zone != n.zone {
		n.zone = unique.Make(item.Zone).Value()
	}
	item.FleetID, item.Zone = n.fleet, n.zone
}
