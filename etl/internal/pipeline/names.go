package pipeline

import "unique"

// names lets go of the text that records were cut from: a valid record needs none of it but its names, of which there
// are few, so that a window of records costs no more memory than the records themselves.
type names struct{ fleet, zone string }

func (n *names) settle(item *Item) {
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
