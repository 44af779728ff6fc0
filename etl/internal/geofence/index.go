package geofence

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/peterstace/simplefeatures/rtree"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Index finds geofences by position. It is immutable and safe for concurrent use.
type Index struct {
	fleets map[string]*fleetIndex
	all    *fleetIndex // geofences of every fleet; never nil
}

// fleetIndex is the geofences of one fleet, the smallest first.
type fleetIndex struct {
	geofences []telemetry.NearbyGeofence
	shapes    []shape
	tree      *rtree.RTree
}

// NewIndex indexes geofences that Parse returned, of one or several files. The error lists all geofences that share a name
// in a fleet. An index may be empty.
func NewIndex(list []Geofence) (*Index, error) {
	if len(list) > MaxGeofences {
		return nil, tooMany(len(list))
	}
	var p problems
	p.errs = nameConflicts(list)
	byFleet := map[string][]*Geofence{AllFleets: nil}
	for i := range list {
		g := &list[i]
		if g.shape == nil {
			p.errs = append(p.errs, fmt.Errorf("geofence %q of fleet %q has no shape: only Parse makes geofences", g.Name, g.Fleet))
			continue
		}
		byFleet[g.Fleet] = append(byFleet[g.Fleet], g)
	}
	if err := p.join(); err != nil {
		return nil, err
	}
	x := &Index{fleets: make(map[string]*fleetIndex, len(byFleet))}
	for fleet, geofences := range byFleet {
		x.fleets[fleet] = newFleetIndex(geofences)
	}
	x.all = x.fleets[AllFleets]
	delete(x.fleets, AllFleets)
	return x, nil
}

func newFleetIndex(list []*Geofence) *fleetIndex {
	slices.SortFunc(list, func(a, b *Geofence) int {
		return cmp.Or(cmp.Compare(a.shape.areaM2, b.shape.areaM2), cmp.Compare(a.Name, b.Name))
	})
	f := &fleetIndex{geofences: make([]telemetry.NearbyGeofence, len(list)), shapes: make([]shape, len(list))}
	items := make([]rtree.BulkItem, len(list))
	for i, g := range list {
		f.geofences[i] = telemetry.NearbyGeofence{
			Name: g.Name, AreaM2: g.shape.areaM2, SpeedLimitKmh: g.SpeedLimitKmh, DwellS: g.DwellS,
			OnEnter: g.OnEnter, OnExit: g.OnExit,
		}
		f.shapes[i] = *g.shape
		items[i] = rtree.BulkItem{Box: g.shape.box, RecordID: i}
	}
	f.tree = rtree.BulkLoad(items)
	return f
}

// Near appends the geofences of a fleet that contain a position in degrees, or whose edge is within reachM meters of it,
// the smallest first. An invalid position is in no geofence.
func (x *Index) Near(fleet string, lat, lon, reachM float64, found []telemetry.NearbyGeofence) []telemetry.NearbyGeofence {
	own := x.fleets[fleet]
	if (own == nil && len(x.all.geofences) == 0) || !onEarth(lat, lon) {
		return found
	}
	if !(reachM > 0) {
		reachM = 0
	}
	p, start := positionOf(lat, lon), len(found)
	if own != nil {
		found = own.near(&p, reachM, found, start)
	}
	if len(x.all.geofences) > 0 {
		found = x.all.near(&p, reachM, found, start)
	}
	if len(found)-start > 1 {
		slices.SortFunc(found[start:], smallestFirst)
	}
	return found
}

func smallestFirst(a, b telemetry.NearbyGeofence) int {
	return cmp.Or(cmp.Compare(a.AreaM2, b.AreaM2), cmp.Compare(a.Name, b.Name))
}

// Smallest returns the name of the smallest geofence of a fleet that contains a position in degrees, and false if there is
// none.
func (x *Index) Smallest(fleet string, lat, lon float64) (string, bool) {
	own := x.fleets[fleet]
	if (own == nil && len(x.all.geofences) == 0) || !onEarth(lat, lon) {
		return "", false
	}
	p := positionOf(lat, lon)
	smallest, ok := x.all.smallest(&p)
	if own != nil {
		if g, found := own.smallest(&p); found && (!ok || smallestFirst(g, smallest) < 0) {
			smallest, ok = g, true
		}
	}
	return smallest.Name, ok
}

func onEarth(lat, lon float64) bool { return math.Abs(lat) <= 90 && math.Abs(lon) <= 180 }

func (f *fleetIndex) near(p *position, reachM float64, found []telemetry.NearbyGeofence, start int) []telemetry.NearbyGeofence {
	f.search(p, reachM, func(id int, wrapped bool) {
		insideM, ok := f.shapes[id].distance(p, reachM)
		if !ok || wrapped && slices.ContainsFunc(found[start:], func(g telemetry.NearbyGeofence) bool { return g.Name == f.geofences[id].Name }) {
			return
		}
		found = append(found, f.geofences[id])
		found[len(found)-1].InsideM = insideM
	})
	return found
}

func (f *fleetIndex) smallest(p *position) (telemetry.NearbyGeofence, bool) {
	best := len(f.geofences)
	f.search(p, 0, func(id int, _ bool) {
		if id < best && f.shapes[id].contains(p) {
			best = id
		}
	})
	if best == len(f.geofences) {
		return telemetry.NearbyGeofence{}, false
	}
	return f.geofences[best], true
}

// search visits the geofences whose boxes are within reach of a position. With wrapped set, the search has crossed the
// date line and may visit a geofence a second time.
func (f *fleetIndex) search(p *position, reachM float64, visit func(id int, wrapped bool)) {
	dLat, dLon := 0.0, 0.0
	if reachM > 0 {
		dLat = reachM / metersPerDeg
		dLon = 180
		// An angle a of a great circle covers at most asin(a / cos(latitude)) of longitude, which is less than this.
		if s := dLat * rad / p.shrink; s < 0.5 {
			dLon = s * (1 + s*s) / rad
		}
	}
	wrapped := false
	each := func(id int) error {
		visit(id, wrapped)
		return nil
	}
	for _, turn := range [...]float64{0, 360, -360} {
		lon := p.lon + turn
		box := rtree.Box{MinX: lon - dLon, MinY: p.lat - dLat, MaxX: lon + dLon, MaxY: p.lat + dLat}
		_ = f.tree.RangeSearch(box, each) // each returns no error
		wrapped = true
	}
}
