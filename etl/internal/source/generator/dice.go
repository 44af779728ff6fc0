package generator

import "math/rand/v2"

// dice is a seeded stream of chance, held by value so that 100,000 vehicles need no allocation each.
type dice struct{ pcg rand.PCG }

// roll starts a stream. Streams of one seed differ even where their numbers are neighbors.
func roll(seed, stream uint64) (d dice) {
	d.pcg.Seed(mix(seed), mix(stream+0x9e3779b97f4a7c15))
	return d
}

// mix is the finisher of SplitMix64 (Steele, Lea, Flood 2014): it spreads neighboring numbers over all 64 bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit is uniform in [0, 1).
func (d *dice) unit() float64 { return float64(d.pcg.Uint64()>>11) / (1 << 53) }

// between is uniform in [lo, hi).
func (d *dice) between(lo, hi float64) float64 { return lo + (hi-lo)*d.unit() }

// chance is true with probability p.
func (d *dice) chance(p float64) bool { return d.unit() < p }

// below is uniform in 0 … n-1.
func (d *dice) below(n int) int { return int(d.unit() * float64(n)) }

// pick chooses one of several values.
func pick[T any](d *dice, from ...T) T { return from[d.below(len(from))] }
