// Package ack tracks which items of a sequence are acknowledged. Acknowledgments arrive in any order; items are released
// in sequence, each once everything before it is acknowledged. A source that saves only the position of the last released
// item therefore never skips one that could still be lost.
package ack

import "slices"

// Tracker holds the items of one sequence that are not released yet. The zero value is ready to use. A Tracker is not
// safe for concurrent use: its owner has a lock anyway, for the position that the released items advance.
type Tracker[T any] struct {
	released uint64 // number of the last released item; pending[0] has the next one
	pending  []item[T]
}

type item[T any] struct {
	value T
	acked bool
}

// Add appends an item and returns its number. Numbers start at 1 and have no gaps.
func (t *Tracker[T]) Add(value T) uint64 {
	t.pending = append(t.pending, item[T]{value: value})
	return t.released + uint64(len(t.pending))
}

// Ack acknowledges the item with the given number and calls release for each item that this releases, in order. An item
// that is acknowledged already, and a number that Add never returned, are ignored. release must not call the Tracker.
func (t *Tracker[T]) Ack(number uint64, release func(T)) {
	if number <= t.released || number > t.released+uint64(len(t.pending)) {
		return
	}
	t.pending[number-t.released-1].acked = true
	for len(t.pending) > 0 && t.pending[0].acked {
		value := t.pending[0].value
		t.pending[0] = item[T]{} // the array outlives the slice
		t.pending = t.pending[1:]
		t.released++
		release(value)
	}
}

// Released returns the number of the last item that was released, 0 before the first.
func (t *Tracker[T]) Released() uint64 { return t.released }

// Len returns the number of items that are not released, including acknowledged ones that wait for an earlier item.
func (t *Tracker[T]) Len() int { return len(t.pending) }

// Find returns the number of the item for which compare returns 0. compare must rise along the sequence from negative to
// positive values. ok is false when there is none, or it is released.
func (t *Tracker[T]) Find(compare func(T) int) (number uint64, ok bool) {
	i, ok := slices.BinarySearchFunc(t.pending, struct{}{}, func(p item[T], _ struct{}) int { return compare(p.value) })
	return t.released + uint64(i) + 1, ok
}
