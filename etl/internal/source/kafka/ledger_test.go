package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// world is one partition as Kafka and the store see it, with what a ledger may not know.
type world struct {
	t         *testing.T
	dice      *rand.Rand
	ledger    *ledger
	p         *partition
	position  int64          // where the member reads on
	stored    map[int64]bool // by offset
	committed int64
	flying    []flight
	trace     []string
}

// flight is records that were handed over and are not reported as done yet.
type flight struct {
	*span
	first int64
}

var there = map[string][]int32{"t": {0}}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) assign() {
	w.ledger.assign(there)
	w.p = w.ledger.find("t", 0)
	w.position = w.committed
	w.note("assigned at %d", w.position)
}

func (w *world) begin() {
	next := w.position + 1 + w.dice.Int64N(4)
	s := w.ledger.begin(w.p, w.position, next, 0)
	require.NotNil(w.t, s)
	w.flying = append(w.flying, flight{s, w.position})
	w.note("handed over %d to %d", w.position, next)
	w.position = next
}

// done lands any flight, be it of an assignment that is over.
func (w *world) done() {
	i := w.dice.IntN(len(w.flying))
	f := w.flying[i]
	w.flying = append(w.flying[:i], w.flying[i+1:]...)
	for offset := f.first; offset < f.next; offset++ {
		w.stored[offset] = true
	}
	w.ledger.done(f.span)
	w.note("%d to %d is durable", f.first, f.next)
}

func (w *world) commit() {
	for p, s := range w.ledger.due() {
		require.Same(w.t, w.p, p, "%v", w.trace)
		require.Greater(w.t, s.next, w.committed, "a commit that goes back or nowhere: %v", w.trace)
		for offset := range s.next {
			require.True(w.t, w.stored[offset], "committed %d while %d is not durable: %v", s.next, offset, w.trace)
		}
		w.committed = s.next
		w.ledger.commit(p, s.next)
		w.note("committed %d", s.next)
	}
}

// leave takes the partition away, with or without a last commit.
func (w *world) leave(inOrder bool) {
	closed := w.ledger.close(there)
	require.Nil(w.t, w.ledger.begin(w.p, w.position, w.position+1, 0), "a record was handed over that is another's")
	if inOrder {
		for range w.dice.IntN(len(w.flying) + 1) {
			w.done()
		}
		w.commit()
	}
	w.ledger.forget(closed)
	w.p = nil
	w.note("left")
	w.commit()
}

func TestTheCommittedOffsetNeverPassesARecordThatIsNotDurable(t *testing.T) {
	var revocations, commits, late int
	for seed := range uint64(3000) {
		w := &world{t: t, dice: rand.New(rand.NewPCG(seed, 1)), ledger: newLedger(), stored: map[int64]bool{}}
		w.assign()
		for range 60 {
			before := w.committed
			switch n := w.dice.IntN(20); {
			case w.p == nil && n < 10:
				w.assign()
			case w.p != nil && n < 8:
				w.begin()
			case n < 14 && len(w.flying) > 0:
				if w.p == nil {
					late++
				}
				w.done()
			case n < 18:
				w.commit()
			case w.p != nil:
				w.leave(n == 18)
				revocations++
			}
			if w.committed > before {
				commits++
			}
		}
		if w.p == nil {
			w.assign()
			w.begin()
		}
		for len(w.flying) > 0 {
			w.done()
		}
		w.commit()
		require.Equal(t, w.position, w.committed, "everything is durable and not everything is committed: %v", w.trace)
	}
	t.Logf("%d revocations, %d commits, %d reports after one", revocations, commits, late)
	assert.Greater(t, min(revocations, commits, late), 1000, "the dice try too little")
}

func TestRecordsOfAnAssignmentThatIsOverAreNotHandedOver(t *testing.T) {
	l := newLedger()
	l.assign(there)
	before := l.find("t", 0)
	l.forget(l.close(there))
	l.assign(there)
	require.NotSame(t, before, l.find("t", 0))
	assert.Nil(t, l.begin(before, 2000, 2500, 0), "the new assignment reads from the committed offset again")
}

func TestSettleWaitsForWhatIsOpenAndNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.assign(there)
		p := l.find("t", 0)
		a, b := l.begin(p, 0, 5, 0), l.begin(p, 5, 9, 0)
		closed := l.close(there)

		begun := time.Now()
		wait, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(10*time.Second, func() { l.done(b) })
		time.AfterFunc(20*time.Second, func() { l.done(a) })
		assert.Zero(t, l.settle(wait, closed))
		assert.Equal(t, 20*time.Second, time.Since(begun))

		begun = time.Now()
		c := &partition{open: []*span{{}}}
		assert.Equal(t, 1, l.settle(wait, []*partition{c}))
		assert.Equal(t, 40*time.Second, time.Since(begun), "it is bounded")
	})
}

func TestStandings(t *testing.T) {
	l := newLedger()
	l.assign(map[string][]int32{"t": {0, 1}})
	l.from("t", 1, 40)
	l.reaches(l.find("t", 1), 45)
	s := l.begin(l.find("t", 0), 7, 9, 0)
	assert.ElementsMatch(t, []standing{{place{"t", 0}, 7, unknown}, {place{"t", 1}, 40, 45}}, l.standings())
	l.done(s)
	assert.Contains(t, l.standings(), standing{place{"t", 0}, 9, unknown})
	l.forget(l.close(map[string][]int32{"t": {0, 1}}))
	assert.Empty(t, l.standings())
}
