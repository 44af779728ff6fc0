package alerting

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// nameSeparator separates the names in an alert about several geofences. No name contains it.
const nameSeparator = ", "

// membership is the relation of a device to a geofence that it is inside of or may be entering. It is outside of all
// other geofences.
type membership struct {
	Geofence string                    `json:"z"`
	AreaM2   float64                   `json:"a"`
	DwellS   telemetry.Optional[int32] `json:"w,omitzero"`
	OnExit   bool                      `json:"x,omitempty"`
	Inside   bool                      `json:"i,omitempty"`
	Against  uint16                    `json:"n,omitempty"` // consecutive positions that contradict Inside
	SinceMs  int64                     `json:"b,omitempty"` // event time of the entry, or of the first position if that was inside
	TurnMs   int64                     `json:"t,omitempty"` // event time of the first of the contradicting positions
}

// locate finds the geofences around the position, and with them its zone and speed limit.
func (ev *evaluation) locate(buffer []telemetry.NearbyGeofence) {
	r := ev.record
	ev.nearby, ev.limitKmh = buffer, ev.set.SpeedLimitKmh
	if ev.engine.geofences != nil {
		ev.marginM = min(rules.MaxMarginM, max(ev.set.MarginM, r.AccuracyM.Value)) // an absent accuracy is 0
		ev.nearby = ev.engine.geofences.Near(r.FleetID, r.Lat, r.Lon, ev.marginM, buffer)
	}
	limited := false
	for i := range ev.nearby {
		g := &ev.nearby[i]
		if g.InsideM < 0 {
			continue
		}
		if ev.zone == "" {
			ev.zone = g.Name
		}
		if g.SpeedLimitKmh.Valid && !limited {
			ev.limitKmh, limited = g.SpeedLimitKmh.Value, true
		}
	}
	if ev.limitKmh == 0 {
		ev.limitKmh = math.Inf(1)
	}
	if ev.zone == "" && r.Zone != telemetry.UnknownZone {
		ev.zone, ev.zoneFromRecord = r.Zone, r.Zone != ""
	}
}

// ownedZone returns the position's zone as a string that may be kept. A record's strings may be parts of a whole line.
func (ev *evaluation) ownedZone() string {
	switch {
	case !ev.zoneFromRecord:
		return ev.zone
	case ev.zone != ev.state.Zone:
		return strings.Clone(ev.zone)
	default:
		return ev.state.Zone
	}
}

// geofences updates which geofences the device is inside of, and evaluates the rules on that.
func (ev *evaluation) geofences(first bool) {
	set, s := ev.set, ev.state
	if ev.engine.geofences == nil || !set.Enter.Enabled && !set.Exit.Enabled && !set.Dwell.Enabled {
		for _, t := range [...]telemetry.AlertType{telemetry.GeofenceEnter, telemetry.GeofenceExit, telemetry.GeofenceDwell} {
			ev.resolve(t, 0)
		}
		s.Memberships, s.GeofencesHash = nil, 0
		return
	}
	if len(ev.nearby) == 0 && len(s.Memberships) == 0 && len(s.Firing) == 0 {
		s.GeofencesHash = ev.engine.geofencesHash
		return
	}
	entered, left := ev.updateMemberships(first || s.GeofencesHash != ev.engine.geofencesHash)
	s.GeofencesHash = ev.engine.geofencesHash
	ev.event(telemetry.GeofenceEnter, &set.Enter, entered, left)
	ev.event(telemetry.GeofenceExit, &set.Exit, left, entered)
	ev.dwell()
}

// updateMemberships applies the position to the memberships and returns the geofences that the device has entered and
// left with it, the smallest first. If the geofences have changed, the device was always inside of a new geofence that
// contains the position, and memberships of geofences out of reach are dropped, since those may no longer exist.
func (ev *evaluation) updateMemberships(changed bool) (entered, left []membership) {
	s, now := ev.state, ev.record.TimeMs
	known := len(s.Memberships)
	for i := range ev.nearby {
		g := &ev.nearby[i]
		at := slices.IndexFunc(s.Memberships[:known], func(m membership) bool { return m.Geofence == g.Name })
		if at >= 0 {
			m := &s.Memberships[at]
			m.Geofence, m.AreaM2, m.DwellS, m.OnExit = g.Name, g.AreaM2, g.DwellS, g.OnExit
			continue
		}
		m := membership{Geofence: g.Name, AreaM2: g.AreaM2, DwellS: g.DwellS, OnExit: g.OnExit}
		switch {
		case changed && g.InsideM >= 0:
			m.Inside, m.SinceMs = true, now
			s.Memberships = append(s.Memberships, m)
		case !changed && g.InsideM >= ev.marginOf(g.AreaM2):
			s.Memberships = append(s.Memberships, m) // its first position is counted below
		}
	}

	kept := s.Memberships[:0]
	for _, m := range s.Memberships {
		g := ev.near(m.Geofence)
		if g == nil && changed {
			continue
		}
		against := g == nil || g.InsideM < 0 && g.InsideM <= -ev.marginOf(m.AreaM2)
		if !m.Inside {
			against = g != nil && g.InsideM >= ev.marginOf(m.AreaM2)
		}
		switch {
		case against && m.Against == 0:
			m.Against, m.TurnMs = 1, now
		case against:
			m.Against++
		case m.Inside:
			m.Against, m.TurnMs = 0, 0
		default:
			continue // it did not enter
		}
		if int(m.Against) >= ev.set.Positions {
			m.Inside, m.Against = !m.Inside, 0
			if !m.Inside {
				left = append(left, m)
				continue
			}
			m.SinceMs = m.TurnMs
			entered = append(entered, m)
			m.TurnMs = 0
		}
		kept = append(kept, m)
	}
	clear(s.Memberships[len(kept):])
	if s.Memberships = kept; len(kept) == 0 {
		s.Memberships = nil
	}
	slices.SortFunc(entered, smallestFirst)
	slices.SortFunc(left, smallestFirst)
	return entered, left
}

func smallestFirst(a, b membership) int {
	return cmp.Or(cmp.Compare(a.AreaM2, b.AreaM2), cmp.Compare(a.Geofence, b.Geofence))
}

// marginOf returns how far from the edge of a geofence a position must be to count. It is at most half the distance to the
// center, so that small geofences can be entered.
func (ev *evaluation) marginOf(areaM2 float64) float64 {
	return min(ev.marginM, math.Sqrt(areaM2/math.Pi)/2)
}

// near returns a geofence around the position, or nil if it is out of reach.
func (ev *evaluation) near(geofence string) *telemetry.NearbyGeofence {
	for i := range ev.nearby {
		if ev.nearby[i].Name == geofence {
			return &ev.nearby[i]
		}
	}
	return nil
}

// contains reports whether the position is inside of a geofence.
func (ev *evaluation) contains(geofence string) bool {
	g := ev.near(geofence)
	return g != nil && g.InsideM >= 0
}

// event opens an alert for the geofences that the device has entered (or left) with this position, if they or the rule
// ask for it. The alert stays open for the hold time, unless a newer one opens or the device turns back.
func (ev *evaluation) event(t telemetry.AlertType, rule *rules.Event, turned, turnedBack []membership) {
	if len(turned) == 0 && len(ev.state.Firing) == 0 {
		return
	}
	var names []string
	var startedMs int64 // the same for all, since the same positions confirmed them
	if rule.Enabled {
		for _, m := range turned {
			if t == telemetry.GeofenceExit && m.OnExit || t == telemetry.GeofenceEnter && ev.near(m.Geofence).OnEnter || rule.Includes(m.Geofence) {
				names, startedMs = append(names, m.Geofence), m.TurnMs
			}
		}
	}
	if a := find(ev.state.Firing, t); a != nil {
		back := func(m membership) bool { return slices.Contains(strings.Split(a.Zone, nameSeparator), m.Geofence) }
		if !rule.Enabled || len(names) > 0 || ev.record.TimeMs >= a.OpenedMs+rule.HoldMs || slices.ContainsFunc(turnedBack, back) {
			ev.resolve(t, 0)
		}
	}
	if len(names) > 0 {
		var a alertState
		a.Type, a.Severity, a.StartedMs, a.Zone = t, rule.Severity, startedMs, strings.Join(names, nameSeparator)
		ev.open(a)
	}
}

// dwell opens an alert for the smallest geofence that the device stays in for too long, until it leaves that geofence.
func (ev *evaluation) dwell() {
	rule, s, now := &ev.set.Dwell, ev.state, ev.record.TimeMs
	if a := find(s.Firing, telemetry.GeofenceDwell); a != nil {
		inside := slices.ContainsFunc(s.Memberships, func(m membership) bool { return m.Geofence == a.Zone && m.Inside })
		switch {
		case !rule.Enabled:
			ev.resolve(telemetry.GeofenceDwell, 0)
		case !inside:
			ev.resolve(telemetry.GeofenceDwell, rule.CoolDownMs)
		default:
			if ev.contains(a.Zone) {
				a.Peak = seconds(now - a.StartedMs)
			}
			return
		}
	}
	if !rule.Enabled || now < s.coolDownUntil(telemetry.GeofenceDwell) {
		return
	}
	var smallest *membership
	var limitMs int64
	for i := range s.Memberships {
		m := &s.Memberships[i]
		limit, ok := rule.LimitMs(m.Geofence, m.DwellS)
		if m.Inside && ok && now-m.SinceMs >= limit && (smallest == nil || smallestFirst(*m, *smallest) < 0) && ev.contains(m.Geofence) {
			smallest, limitMs = m, limit
		}
	}
	if smallest != nil {
		var a alertState
		a.Type, a.Severity, a.StartedMs, a.Zone = telemetry.GeofenceDwell, rule.Severity, smallest.SinceMs, smallest.Geofence
		a.Peak, a.Threshold = seconds(now-smallest.SinceMs), seconds(limitMs)
		ev.open(a)
	}
}
