package geofence

import "math"

// edge is a straight piece of an outline.
type edge struct{ x1, y1, x2, y2 float64 }

// extent is a bounding box of edges.
type extent struct{ minX, minY, maxX, maxY float64 }

// fanOut is the number of edges, or of extents of the level below, in an extent.
const fanOut = 8

// outline is the edges of a geofence in the order of its rings. Neighbors in that order are neighbors on the ground, so
// extents over each eight edges, over each eight of those extents, and so on form a tree.
type outline struct {
	edges  []edge
	levels [][]extent // the lowest first, the last has at most fanOut; none if there are few edges
}

func newOutline(edges []edge) outline {
	o := outline{edges: edges}
	if len(edges) <= 2*fanOut {
		return o
	}
	level := make([]extent, 0, (len(edges)+fanOut-1)/fanOut)
	for i := 0; i < len(edges); i += fanOut {
		x := extent{math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)}
		for _, e := range edges[i:min(i+fanOut, len(edges))] {
			x = x.with(extent{min(e.x1, e.x2), min(e.y1, e.y2), max(e.x1, e.x2), max(e.y1, e.y2)})
		}
		level = append(level, x)
	}
	o.levels = append(o.levels, level)
	for len(level) > fanOut {
		above := make([]extent, 0, (len(level)+fanOut-1)/fanOut)
		for i := 0; i < len(level); i += fanOut {
			x := level[i]
			for _, other := range level[i+1 : min(i+fanOut, len(level))] {
				x = x.with(other)
			}
			above = append(above, x)
		}
		o.levels = append(o.levels, above)
		level = above
	}
	return o
}

func (x extent) with(o extent) extent {
	return extent{min(x.minX, o.minX), min(x.minY, o.minY), max(x.maxX, o.maxX), max(x.maxY, o.maxY)}
}

// contains applies the even-odd rule, which needs no distinction of holes and parts: a ray to the east crosses an odd
// number of edges.
func (o *outline) contains(x, y float64) bool {
	return o.crossings(len(o.levels), 0, x, y)&1 == 1
}

// crossings counts the edges below a node that the ray crosses. first is the index of the node's first child in the level
// below. Level 0 is the edges.
func (o *outline) crossings(level, first int, x, y float64) (n int) {
	if level == 0 {
		last := len(o.edges)
		if len(o.levels) > 0 {
			last = min(last, first+fanOut)
		}
		for i := first; i < last; i++ {
			e := &o.edges[i]
			if (e.y1 > y) != (e.y2 > y) && x < e.x1+(y-e.y1)*(e.x2-e.x1)/(e.y2-e.y1) {
				n++
			}
		}
		return n
	}
	extents := o.levels[level-1]
	for i := first; i < min(first+fanOut, len(extents)); i++ {
		if b := &extents[i]; b.minY <= y && y < b.maxY && x < b.maxX {
			n += o.crossings(level-1, i*fanOut, x, y)
		}
	}
	return n
}

// distance2 returns the square of the distance to the nearest edge, at most limit. Lengths along x are multiplied by
// shrink.
func (o *outline) distance2(x, y, shrink, limit float64) float64 {
	return o.nearest(len(o.levels), 0, x, y, shrink, limit)
}

func (o *outline) nearest(level, first int, x, y, shrink, best float64) float64 {
	if level == 0 {
		last := len(o.edges)
		if len(o.levels) > 0 {
			last = min(last, first+fanOut)
		}
		for i := first; i < last; i++ {
			best = o.edges[i].nearer(x, y, shrink, best)
		}
		return best
	}
	// Start with the nearest child, which excludes most of the others.
	extents := o.levels[level-1]
	extents = extents[first:min(first+fanOut, len(extents))]
	var bounds [fanOut]float64
	near := 0
	for i := range extents {
		bounds[i] = extents[i].distance2(x, y, shrink)
		if bounds[i] < bounds[near] {
			near = i
		}
	}
	if bounds[near] >= best {
		return best
	}
	best = o.nearest(level-1, (first+near)*fanOut, x, y, shrink, best)
	for i := range extents {
		if i != near && bounds[i] < best {
			best = o.nearest(level-1, (first+i)*fanOut, x, y, shrink, best)
		}
	}
	return best
}

// nearer returns the square of the distance to an edge, at most best. It leaves the edge's end to the edge that begins
// there, and divides only if the result is smaller than best.
func (e *edge) nearer(x, y, shrink, best float64) float64 {
	ex, ey := (e.x2-e.x1)*shrink, e.y2-e.y1
	px, py := (x-e.x1)*shrink, y-e.y1
	dot, length2 := px*ex+py*ey, ex*ex+ey*ey
	if dot <= 0 {
		return min(best, px*px+py*py)
	}
	if cross := px*ey - py*ex; dot < length2 && cross*cross < best*length2 {
		return cross * cross / length2
	}
	return best
}

func (x *extent) distance2(px, py, shrink float64) float64 {
	dx := max(0, x.minX-px, px-x.maxX) * shrink
	dy := max(0, x.minY-py, py-x.maxY)
	return dx*dx + dy*dy
}
