// Package fair shares what is scarce between fleets that do not trust each other. A fleet waits behind a bounded part of
// another fleet's work, whatever that one has queued.
package fair

import "slices"

// Queue is a first-in first-out queue per key. The keys are served in turn, each with items of the quantum's cost, as in
// deficit round robin: a key that asks for more gets no more than the others. It is not safe for concurrent use.
type Queue[T any] struct {
	quantum int64
	flows   map[string]*flow[T]
	turns   []*flow[T] // those with items, the next one first
	length  int
}

type flow[T any] struct {
	key   string
	items []item[T]
	used  int64 // of the quantum
}

type item[T any] struct {
	value T
	cost  int64
}

// NewQueue makes a queue. The cost of an item should not be above the quantum.
func NewQueue[T any](quantum int64) *Queue[T] {
	return &Queue[T]{quantum: quantum, flows: map[string]*flow[T]{}}
}

// Len returns the number of items.
func (q *Queue[T]) Len() int { return q.length }

// LenOf returns the number of items of a key.
func (q *Queue[T]) LenOf(key string) int {
	if f := q.flows[key]; f != nil {
		return len(f.items)
	}
	return 0
}

// Push adds an item behind the others of its key.
func (q *Queue[T]) Push(key string, cost int64, value T) {
	f := q.flows[key]
	if f == nil {
		f = &flow[T]{key: key}
		q.flows[key] = f
		q.turns = append(q.turns, f)
	}
	f.items = append(f.items, item[T]{value, cost})
	q.length++
}

// Pop removes the next item.
func (q *Queue[T]) Pop() (value T, ok bool) {
	return q.PopIf(func(string, T) bool { return true })
}

// PopIf removes the next item for which may is true. It passes over the keys whose first item may not go yet.
func (q *Queue[T]) PopIf(may func(key string, value T) bool) (value T, ok bool) {
	for i, f := range q.turns {
		first := f.items[0]
		if !may(f.key, first.value) {
			continue
		}
		f.items[0] = item[T]{} // the array outlives the slice
		f.items = f.items[1:]
		q.length--
		if f.used += first.cost; len(f.items) == 0 {
			q.end(i)
		} else if f.used >= q.quantum { // what it used too much counts in its next turn
			f.used -= q.quantum
			q.turns = append(slices.Delete(q.turns, i, i+1), f)
		}
		return first.value, true
	}
	return value, false
}

// Remove removes the items of a key for which is is true.
func (q *Queue[T]) Remove(key string, is func(T) bool) {
	f := q.flows[key]
	if f == nil {
		return
	}
	q.length -= len(f.items)
	f.items = slices.DeleteFunc(f.items, func(i item[T]) bool { return is(i.value) })
	if q.length += len(f.items); len(f.items) == 0 {
		q.end(slices.Index(q.turns, f))
	}
}

// end forgets a key without items.
func (q *Queue[T]) end(turn int) {
	delete(q.flows, q.turns[turn].key)
	q.turns = slices.Delete(q.turns, turn, turn+1)
}

// Interleave returns items in turn by key, those of one key in their order.
func Interleave[T any](items []T, key func(T) string) []T {
	q := NewQueue[T](1)
	for _, i := range items {
		q.Push(key(i), 1, i)
	}
	mixed := make([]T, 0, len(items))
	for i, ok := q.Pop(); ok; i, ok = q.Pop() {
		mixed = append(mixed, i)
	}
	return mixed
}
