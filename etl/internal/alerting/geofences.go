package alerting

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// maxMarginM bounds what a fix's accuracy may ask for: beyond it a zone could be entered only by a fix in its middle.
const maxMarginM = 250

// betweenZones parts the names in an alert that is about several zones. No name contains it.
const betweenZones = ", "

// membership is how a device stands to a zone that it is inside of, or seems to enter. Of other zones it is outside.
type membership struct {
	Zone    string                    `json:"z"`
	AreaM2  float64                   `json:"a"`
	DwellS  telemetry.Optional[int32] `json:"w,omitzero"`
	OnExit  bool                      `json:"x,omitempty"`
	Inside  bool                      `json:"i,omitempty"`
	Against uint16                    `json:"n,omitempty"` // consecutive fixes that speak against what Inside says
	SinceMs int64                     `json:"b,omitempty"` // event time of the entry, or of the first sight
	TurnMs  int64                     `json:"t,omitempty"` // the first of those consecutive fixes
}

// locate finds the zones around the fix, and what they say of its place and of the speed allowed there.
func (f *fix) locate(buffer []telemetry.Place) {
	r := f.record
	f.places, f.limit = buffer, f.set.speedLimitKmh
	if f.engine.zones != nil {
		f.marginM = min(maxMarginM, max(f.set.marginM, r.AccuracyM.Value)) // an absent accuracy is 0
		f.places = f.engine.zones.At(r.FleetID, r.Lat, r.Lon, f.marginM, buffer)
	}
	limited := false
	for i := range f.places {
		p := &f.places[i]
		if p.InsideM < 0 {
			continue
		}
		if f.zone == "" {
			f.zone = p.Zone
		}
		if p.SpeedLimitKmh.Valid && !limited {
			f.limit, limited = p.SpeedLimitKmh.Value, true
		}
	}
	if f.zone == "" && r.Zone != telemetry.UnknownZone {
		f.zone, f.named = r.Zone, r.Zone != ""
	}
}

// keptZone is the name of the fix's zone as it may be kept: a record's strings may be cut from a whole line.
func (f *fix) keptZone() string {
	if f.named && f.zone != f.state.zone {
		return strings.Clone(f.zone)
	}
	if f.named {
		return f.state.zone
	}
	return f.zone
}

// geofences settles which zones the device is inside of, and what it is worth telling of that.
func (f *fix) geofences(fresh bool) {
	set, s := f.set, f.state
	if f.engine.zones == nil || !set.enter.enabled && !set.exit.enabled && !set.dwell.enabled {
		for _, t := range [...]telemetry.AlertType{telemetry.GeofenceEnter, telemetry.GeofenceExit, telemetry.GeofenceDwell} {
			f.resolve(t, 0)
		}
		s.memberships, s.zonesKnown = nil, 0
		return
	}
	if len(f.places) == 0 && len(s.memberships) == 0 && len(s.standing) == 0 {
		s.zonesKnown = f.engine.known
		return
	}
	entered, left := f.settle(fresh || s.zonesKnown != f.engine.known)
	s.zonesKnown = f.engine.known
	f.event(telemetry.GeofenceEnter, &set.enter, entered, left)
	f.event(telemetry.GeofenceExit, &set.exit, left, entered)
	f.dwell()
}

// settle takes the fix into the memberships, and gives those that have turned, the smallest zone first. The zones may be
// others than those that the memberships are of: then a zone that contains the fix is one that the device was always
// inside of, and one out of reach is taken for one that is no more.
func (f *fix) settle(otherZones bool) (entered, left []membership) {
	s, now := f.state, f.record.TimeMs
	met := len(s.memberships)
	for i := range f.places {
		p := &f.places[i]
		at := slices.IndexFunc(s.memberships[:met], func(m membership) bool { return m.Zone == p.Zone })
		if at >= 0 {
			m := &s.memberships[at]
			m.Zone, m.AreaM2, m.DwellS, m.OnExit = p.Zone, p.AreaM2, p.DwellS, p.OnExit
			continue
		}
		m := membership{Zone: p.Zone, AreaM2: p.AreaM2, DwellS: p.DwellS, OnExit: p.OnExit}
		switch {
		case otherZones && p.InsideM >= 0:
			m.Inside, m.SinceMs = true, now
			s.memberships = append(s.memberships, m)
		case !otherZones && p.InsideM >= f.marginOf(p.AreaM2):
			s.memberships = append(s.memberships, m) // its first fix is counted below
		}
	}

	kept := s.memberships[:0]
	for _, m := range s.memberships {
		p := f.place(m.Zone)
		if p == nil && otherZones {
			continue
		}
		against := p == nil || p.InsideM < 0 && p.InsideM <= -f.marginOf(m.AreaM2)
		if !m.Inside {
			against = p != nil && p.InsideM >= f.marginOf(m.AreaM2)
		}
		switch {
		case against && m.Against == 0:
			m.Against, m.TurnMs = 1, now
		case against:
			m.Against++
		case m.Inside:
			m.Against, m.TurnMs = 0, 0
		default:
			continue // it only seemed to enter
		}
		if int(m.Against) >= f.set.fixes {
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
	clear(s.memberships[len(kept):])
	if s.memberships = kept; len(kept) == 0 {
		s.memberships = nil
	}
	slices.SortFunc(entered, smallestFirst)
	slices.SortFunc(left, smallestFirst)
	return entered, left
}

func smallestFirst(a, b membership) int {
	return cmp.Or(cmp.Compare(a.AreaM2, b.AreaM2), cmp.Compare(a.Zone, b.Zone))
}

// marginOf is how far from the edge of a zone a fix must lie to count: half the way to the middle at most, so that small
// zones can be entered.
func (f *fix) marginOf(areaM2 float64) float64 {
	return min(f.marginM, math.Sqrt(areaM2/math.Pi)/2)
}

// place is where the fix lies with regard to a zone, or nil when that is not within reach.
func (f *fix) place(zone string) *telemetry.Place {
	for i := range f.places {
		if f.places[i].Zone == zone {
			return &f.places[i]
		}
	}
	return nil
}

// event raises an alert for the zones that have turned at this fix, as far as somebody asked for it. It stays open for a
// while, unless there is a newer one or one of its zones turns back.
func (f *fix) event(t telemetry.AlertType, rule *eventRule, turned, turnedBack []membership) {
	if len(turned) == 0 && len(f.state.standing) == 0 {
		return
	}
	var names []string
	var startedMs int64 // one for all: they turned by the same fixes
	if rule.enabled {
		for _, m := range turned {
			if t == telemetry.GeofenceExit && m.OnExit || t == telemetry.GeofenceEnter && f.place(m.Zone).OnEnter || rule.names(m.Zone) {
				names, startedMs = append(names, m.Zone), m.TurnMs
			}
		}
	}
	if o := f.state.find(t); o != nil {
		back := func(m membership) bool {
			for zone := range strings.SplitSeq(o.Zone, betweenZones) {
				if zone == m.Zone {
					return true
				}
			}
			return false
		}
		if !rule.enabled || len(names) > 0 || f.record.TimeMs >= o.OpenedMs+rule.holdMs || slices.ContainsFunc(turnedBack, back) {
			f.resolve(t, 0)
		}
	}
	if len(names) > 0 {
		var o standing
		o.Type, o.Severity, o.StartedMs, o.Zone = t, rule.severity, startedMs, strings.Join(names, betweenZones)
		f.open(o)
	}
}

// dwell raises an alert for the smallest zone in which the device has been for too long, until it has left that.
func (f *fix) dwell() {
	rule, s, now := &f.set.dwell, f.state, f.record.TimeMs
	if o := s.find(telemetry.GeofenceDwell); o != nil {
		at := slices.IndexFunc(s.memberships, func(m membership) bool { return m.Zone == o.Zone && m.Inside })
		switch {
		case !rule.enabled:
			f.resolve(telemetry.GeofenceDwell, 0)
		case at < 0:
			f.resolve(telemetry.GeofenceDwell, rule.coolDownMs)
		default:
			if f.contains(o.Zone) {
				o.Peak = seconds(now - o.StartedMs)
			}
			return
		}
	}
	if !rule.enabled || now < s.restsUntil(telemetry.GeofenceDwell) {
		return
	}
	var longest *membership
	for i := range s.memberships {
		m := &s.memberships[i]
		limit, ok := rule.limit(m)
		if m.Inside && ok && now-m.SinceMs >= limit && (longest == nil || smallestFirst(*m, *longest) < 0) && f.contains(m.Zone) {
			longest = m
		}
	}
	if longest != nil {
		limit, _ := rule.limit(longest)
		var o standing
		o.Type, o.Severity, o.StartedMs, o.Zone = telemetry.GeofenceDwell, rule.severity, longest.SinceMs, longest.Zone
		o.Peak, o.Threshold = seconds(now-longest.SinceMs), seconds(limit)
		f.open(o)
	}
}

// contains tells whether the fix itself lies in a zone.
func (f *fix) contains(zone string) bool {
	p := f.place(zone)
	return p != nil && p.InsideM >= 0
}

// limit is for how many milliseconds a device may stay in a zone. What the rules say of the zone by its name goes before what the
// zone says of itself, and that before what they say of every zone.
func (r *dwellRule) limit(m *membership) (int64, bool) {
	if s, ok := r.zones[m.Zone]; ok {
		return s, true
	}
	if m.DwellS.Valid {
		return int64(m.DwellS.Value) * 1000, true
	}
	s, ok := r.zones[everyZone]
	return s, ok
}
