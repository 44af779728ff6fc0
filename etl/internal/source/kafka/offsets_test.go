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

// model is one partition as Kafka and the store see it.
type model struct {
	t         *testing.T
	random    *rand.Rand
	tracker   *offsetTracker
	p         *partition
	position  int64          // next offset to read
	stored    map[int64]bool // by offset
	committed int64
	inFlight  []inFlight
	trace     []string
}

// inFlight is an in-flight range, also one of an assignment that has ended.
type inFlight struct {
	p           *partition
	number      uint64
	first, next int64
}

var onePartition = map[string][]int32{"t": {0}}

func (m *model) log(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *model) assign() {
	m.tracker.assign(onePartition)
	m.p = m.tracker.find("t", 0)
	m.position = m.committed
	m.log("assigned at %d", m.position)
}

func (m *model) begin() {
	next := m.position + 1 + m.random.Int64N(4)
	number, ok := m.tracker.begin(m.p, m.position, next, 0)
	require.True(m.t, ok)
	m.inFlight = append(m.inFlight, inFlight{m.p, number, m.position, next})
	m.log("emitted %d to %d", m.position, next)
	m.position = next
}

// ack acknowledges any range in flight, also one of an assignment that has ended.
func (m *model) ack() {
	i := m.random.IntN(len(m.inFlight))
	f := m.inFlight[i]
	m.inFlight = append(m.inFlight[:i], m.inFlight[i+1:]...)
	for offset := f.first; offset < f.next; offset++ {
		m.stored[offset] = true
	}
	m.tracker.ack(f.p, f.number)
	m.log("%d to %d is durable", f.first, f.next)
}

func (m *model) commit() {
	for p, o := range m.tracker.uncommitted() {
		require.Same(m.t, m.p, p, "%v", m.trace)
		require.Greater(m.t, o.next, m.committed, "a commit that does not advance: %v", m.trace)
		for offset := range o.next {
			require.True(m.t, m.stored[offset], "committed %d while %d is not durable: %v", o.next, offset, m.trace)
		}
		m.committed = o.next
		m.tracker.setCommitted(p, o.next)
		m.log("committed %d", o.next)
	}
}

// unassign ends the assignment, with a last commit (revoked) or without (lost).
func (m *model) unassign(revoked bool) {
	closed := m.tracker.close(onePartition)
	_, ok := m.tracker.begin(m.p, m.position, m.position+1, 0)
	require.False(m.t, ok, "emitted a record that another consumer reads")
	if revoked {
		for range m.random.IntN(len(m.inFlight) + 1) {
			m.ack()
		}
		m.commit()
	}
	m.tracker.remove(closed)
	m.p = nil
	m.log("unassigned")
	m.commit()
}

func TestCommittedOffsetNeverPassesUndurableRecord(t *testing.T) {
	var revocations, commits, late int
	for seed := range uint64(3000) {
		m := &model{t: t, random: rand.New(rand.NewPCG(seed, 1)), tracker: newOffsetTracker(), stored: map[int64]bool{}}
		m.assign()
		for range 60 {
			before := m.committed
			switch n := m.random.IntN(20); {
			case m.p == nil && n < 10:
				m.assign()
			case m.p != nil && n < 8:
				m.begin()
			case n < 14 && len(m.inFlight) > 0:
				if m.p == nil {
					late++
				}
				m.ack()
			case n < 18:
				m.commit()
			case m.p != nil:
				m.unassign(n == 18)
				revocations++
			}
			if m.committed > before {
				commits++
			}
		}
		if m.p == nil {
			m.assign()
			m.begin()
		}
		for len(m.inFlight) > 0 {
			m.ack()
		}
		m.commit()
		require.Equal(t, m.position, m.committed, "everything is durable, but not everything is committed: %v", m.trace)
	}
	t.Logf("%d revocations, %d commits, %d acks after a revocation", revocations, commits, late)
	assert.Greater(t, min(revocations, commits, late), 1000, "the random steps cover too little")
}

func TestRecordsOfEndedAssignmentAreNotEmitted(t *testing.T) {
	tracker := newOffsetTracker()
	tracker.assign(onePartition)
	before := tracker.find("t", 0)
	tracker.remove(tracker.close(onePartition))
	tracker.assign(onePartition)
	require.NotSame(t, before, tracker.find("t", 0))
	_, ok := tracker.begin(before, 2000, 2500, 0)
	assert.False(t, ok, "the new assignment reads from the committed offset again")
}

func TestWaitEndsWithTheLastRangeInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := newOffsetTracker()
		tracker.assign(onePartition)
		p := tracker.find("t", 0)
		a, _ := tracker.begin(p, 0, 5, 0)
		b, _ := tracker.begin(p, 5, 9, 0)
		closed := tracker.close(onePartition)

		begun := time.Now()
		wait, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.AfterFunc(10*time.Second, func() { tracker.ack(p, b) })
		time.AfterFunc(20*time.Second, func() { tracker.ack(p, a) })
		assert.Zero(t, tracker.wait(wait, closed))
		assert.Equal(t, 20*time.Second, time.Since(begun))

		begun = time.Now()
		c := &partition{}
		c.inFlight.Add(offset{})
		assert.Equal(t, 1, tracker.wait(wait, []*partition{c}))
		assert.Equal(t, 40*time.Second, time.Since(begun), "the wait ends with its context")
	})
}

func TestProgress(t *testing.T) {
	tracker := newOffsetTracker()
	tracker.assign(map[string][]int32{"t": {0, 1}})
	type progress struct {
		topicPartition
		position, end int64
	}
	all := func() (all []progress) {
		tracker.each(func(p *partition) { all = append(all, progress{p.topicPartition, p.durable, p.end}) })
		return all
	}
	tracker.find("t", 1).measured(40, 45)
	p := tracker.find("t", 0)
	number, _ := tracker.begin(p, 7, 9, 0)
	assert.ElementsMatch(t, []progress{{topicPartition{"t", 0}, 7, unknown}, {topicPartition{"t", 1}, 40, 45}}, all())
	tracker.ack(p, number)
	assert.Contains(t, all(), progress{topicPartition{"t", 0}, 9, unknown})
	tracker.remove(tracker.close(map[string][]int32{"t": {0, 1}}))
	assert.Empty(t, all())
}
