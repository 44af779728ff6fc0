package generator

import (
	"math"
	"testing"
)

func TestPlacesAreConnected(t *testing.T) {
	c := buildCity()
	for i := range c.places {
		for j := range c.places {
			at, target := c.places[j].node, c.places[i].node
			for hops := 0; at != target; hops++ {
				way := c.next[i][at]
				if way == noWay || hops > 200 {
					t.Fatalf("no way from place %d to place %d", j, i)
				}
				at = c.nodes[at].edges[way].to
			}
		}
	}
}

func TestStreetsAllowBraking(t *testing.T) {
	c := buildCity()
	for i, n := range c.nodes {
		for _, e := range n.edges {
			length := math.Hypot(n.x-c.nodes[e.to].x, n.y-c.nodes[e.to].y)
			fastest := 1.1 * e.limit
			if e.limit >= motorwayFrom {
				fastest = 1.75 * e.limit
			}
			// The gentlest driver brakes with 1.2 m/s² and always sees one street less than the horizon in full.
			if braking := fastest * fastest / (2 * 1.2); length*(horizon-1) < braking {
				t.Errorf("street %d to %d is %.0f m long with a limit of %.0f km/h", i, e.to, length, e.limit*3.6)
			}
		}
	}
}
