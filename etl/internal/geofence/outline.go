package geofence

import (
	"math"
	"slices"
)

// edge is a straight piece of an outline.
type edge struct{ x1, y1, x2, y2 float64 }

// extent is a bounding box of edges.
type extent struct{ minX, minY, maxX, maxY float64 }

// outline is the edges of a geofence in the order of its rings. Neighbors in that order are neighbors on the ground, so most
// blocks of consecutive edges are far from a position, as their extents show.
type outline struct {
	edges  []edge
	size   int      // of a block
	blocks []extent // none if there are few edges
}

func newOutline(edges []edge) outline {
	o := outline{edges: edges, size: max(8, int(math.Sqrt(float64(len(edges)))))}
	if len(edges) <= 2*o.size {
		return o
	}
	for block := range slices.Chunk(edges, o.size) {
		x := extent{math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)}
		for _, e := range block {
			x.minX, x.minY = min(x.minX, e.x1, e.x2), min(x.minY, e.y1, e.y2)
			x.maxX, x.maxY = max(x.maxX, e.x1, e.x2), max(x.maxY, e.y1, e.y2)
		}
		o.blocks = append(o.blocks, x)
	}
	return o
}

// block returns the edges of a block.
func (o *outline) block(i int) []edge { return o.edges[i*o.size : min((i+1)*o.size, len(o.edges))] }

// contains applies the even-odd rule, which needs no distinction of holes and parts: a ray to the east crosses an odd
// number of edges.
func (o *outline) contains(x, y float64) bool {
	if len(o.blocks) == 0 {
		return crossings(o.edges, x, y)&1 == 1
	}
	n := 0
	for i := range o.blocks {
		if b := &o.blocks[i]; b.minY <= y && y < b.maxY && x < b.maxX {
			n += crossings(o.block(i), x, y)
		}
	}
	return n&1 == 1
}

// crossings counts the edges that the ray crosses.
func crossings(edges []edge, x, y float64) (n int) {
	for i := range edges {
		e := &edges[i]
		if (e.y1 > y) != (e.y2 > y) && x < e.x1+(y-e.y1)*(e.x2-e.x1)/(e.y2-e.y1) {
			n++
		}
	}
	return n
}

// distance2 returns the square of the distance to the nearest edge, at most limit. Lengths along x are multiplied by
// shrink.
func (o *outline) distance2(x, y, shrink, limit float64) float64 {
	if len(o.blocks) == 0 {
		return nearest(o.edges, x, y, shrink, limit)
	}
	// Start with the nearest block, which excludes most of the others.
	near, bound := 0, math.Inf(1)
	for i := range o.blocks {
		if d := o.blocks[i].distance2(x, y, shrink); d < bound {
			near, bound = i, d
		}
	}
	if bound >= limit {
		return limit
	}
	best := nearest(o.block(near), x, y, shrink, limit)
	for i := range o.blocks {
		if i != near && o.blocks[i].distance2(x, y, shrink) < best {
			best = nearest(o.block(i), x, y, shrink, best)
		}
	}
	return best
}

// nearest returns the square of the distance to the nearest of some edges, at most best.
func nearest(edges []edge, x, y, shrink, best float64) float64 {
	for i := range edges {
		best = edges[i].nearer(x, y, shrink, best)
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
