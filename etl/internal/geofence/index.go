package geofence

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/peterstace/simplefeatures/rtree"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Index finds the zones at a position. It never changes, so any number of goroutines may ask it.
type Index struct {
	fleets map[string]*zones
	all    *zones // those of every fleet; never nil
}

// zones is zones of one fleet, the smallest first.
type zones struct {
	places []telemetry.Place
	shapes []shape
	tree   *rtree.RTree
	west   float64 // the tree's longitudes
	east   float64
}

// NewIndex indexes zones that Parse made, of one file or of several. The error names every two zones that share a name
// in a fleet. No zones are an index that finds none.
func NewIndex(list []Zone) (*Index, error) {
	if len(list) > MaxZones {
		return nil, tooMany(len(list))
	}
	var p problems
	p.errs = clashes(list)
	byFleet := map[string][]*Zone{AllFleets: nil}
	for i := range list {
		z := &list[i]
		if z.shape == nil {
			p.errs = append(p.errs, fmt.Errorf("zone %q of fleet %q has no shape: only Parse makes zones", z.Name, z.Fleet))
			continue
		}
		byFleet[z.Fleet] = append(byFleet[z.Fleet], z)
	}
	if err := p.join(); err != nil {
		return nil, err
	}
	x := &Index{fleets: make(map[string]*zones, len(byFleet))}
	for fleet, of := range byFleet {
		x.fleets[fleet] = newZones(of)
	}
	x.all = x.fleets[AllFleets]
	delete(x.fleets, AllFleets)
	return x, nil
}

func newZones(of []*Zone) *zones {
	slices.SortFunc(of, func(a, b *Zone) int {
		return cmp.Or(cmp.Compare(a.shape.areaM2, b.shape.areaM2), strings.Compare(a.Name, b.Name))
	})
	zs := &zones{places: make([]telemetry.Place, len(of)), shapes: make([]shape, len(of))}
	items := make([]rtree.BulkItem, len(of))
	for i, z := range of {
		zs.places[i] = telemetry.Place{
			Zone: z.Name, AreaM2: z.shape.areaM2, SpeedLimitKmh: z.SpeedLimitKmh, DwellS: z.DwellS,
			OnEnter: z.OnEnter, OnExit: z.OnExit,
		}
		zs.shapes[i] = *z.shape
		items[i] = rtree.BulkItem{Box: z.shape.box, RecordID: i}
	}
	zs.tree = rtree.BulkLoad(items)
	extent, _ := zs.tree.Extent()
	zs.west, zs.east = extent.MinX, extent.MaxX
	return zs
}

// At appends the zones of a fleet that contain a position in degrees, or whose edge is within reachM metres of it, the
// smallest first. A position that is none is in no zone.
func (x *Index) At(fleet string, lat, lon, reachM float64, found []telemetry.Place) []telemetry.Place {
	own := x.fleets[fleet]
	if (own == nil && len(x.all.places) == 0) || !onEarth(lat, lon) {
		return found
	}
	if !(reachM > 0) {
		reachM = 0
	}
	p, start := positionOf(lat, lon), len(found)
	if own != nil {
		found = own.at(&p, reachM, found, start)
	}
	if len(x.all.places) > 0 {
		found = x.all.at(&p, reachM, found, start)
	}
	if len(found)-start > 1 {
		slices.SortFunc(found[start:], smaller)
	}
	return found
}

func smaller(a, b telemetry.Place) int {
	if c := cmp.Compare(a.AreaM2, b.AreaM2); c != 0 {
		return c
	}
	return strings.Compare(a.Zone, b.Zone)
}

// Zone is the name of the smallest zone of a fleet that contains a position in degrees; false where none does.
func (x *Index) Zone(fleet string, lat, lon float64) (string, bool) {
	own := x.fleets[fleet]
	if (own == nil && len(x.all.places) == 0) || !onEarth(lat, lon) {
		return "", false
	}
	p := positionOf(lat, lon)
	smallest, ok := x.all.smallest(&p)
	if own != nil {
		if place, found := own.smallest(&p); found && (!ok || smaller(place, smallest) < 0) {
			smallest, ok = place, true
		}
	}
	return smallest.Zone, ok
}

func onEarth(lat, lon float64) bool { return math.Abs(lat) <= 90 && math.Abs(lon) <= 180 }

func (zs *zones) at(p *position, reachM float64, found []telemetry.Place, start int) []telemetry.Place {
	zs.near(p, reachM, func(id int, again bool) {
		insideM, ok := zs.shapes[id].at(p, reachM)
		if !ok || again && slices.ContainsFunc(found[start:], func(o telemetry.Place) bool { return o.Zone == zs.places[id].Zone }) {
			return
		}
		found = append(found, zs.places[id])
		found[len(found)-1].InsideM = insideM
	})
	return found
}

func (zs *zones) smallest(p *position) (telemetry.Place, bool) {
	best := len(zs.places)
	zs.near(p, 0, func(id int, _ bool) {
		if id < best && zs.shapes[id].contains(p) {
			best = id
		}
	})
	if best == len(zs.places) {
		return telemetry.Place{}, false
	}
	return zs.places[best], true
}

// near visits the zones whose boxes are within reach of a position. A search that goes on beyond the date line may meet
// a zone again.
func (zs *zones) near(p *position, reachM float64, visit func(id int, again bool)) {
	dLat, dLon := 0.0, 0.0
	if reachM > 0 {
		dLat = reachM / metresPerDeg
		dLon = 180
		// An angle a of a great circle covers at most asin(a / cos(latitude)) of longitude, which is less than this.
		if s := dLat * rad / p.shrink; s < 0.5 {
			dLon = s * (1 + s*s) / rad
		}
	}
	again := false
	each := func(id int) error {
		visit(id, again)
		return nil
	}
	box := rtree.Box{MinX: p.lon - dLon, MinY: p.lat - dLat, MaxX: p.lon + dLon, MaxY: p.lat + dLat}
	_ = zs.tree.RangeSearch(box, each) // each has no error to give
	again = true
	if east := (rtree.Box{MinX: box.MinX + 360, MinY: box.MinY, MaxX: box.MaxX + 360, MaxY: box.MaxY}); east.MinX <= zs.east {
		_ = zs.tree.RangeSearch(east, each)
	}
	if west := (rtree.Box{MinX: box.MinX - 360, MinY: box.MinY, MaxX: box.MaxX - 360, MaxY: box.MaxY}); west.MaxX >= zs.west {
		_ = zs.tree.RangeSearch(west, each)
	}
}
