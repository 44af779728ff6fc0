package notify

import (
	"container/list"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	toldAtMost = 10_000           // steps that are remembered
	toldFor    = 15 * time.Minute // how long a resolution is
	takenTwice = 2                // see told.again
)

// key is an alert as Alertmanager knows it: by its labels.
type key struct {
	fleet, device string
	kind          telemetry.AlertType
	severity      telemetry.Severity
}

func keyOf(a *telemetry.Alert) key { return key{a.FleetID, a.DeviceID, a.Type, a.Severity} }

// told is what Tell brought lately, the last of each alert: the open ones until they are read from the store, the
// resolved ones, of which the store says nothing, until every Alertmanager took them. A resolution stays for a while
// longer, because a list of open alerts that was read before may still have the alert.
type told struct {
	byKey          map[key]*list.Element
	open, resolved list.List // of *news, the oldest first
	receivers      int
}

// news is one alert that people are to be told of.
type news struct {
	alert    telemetry.Alert
	resolved bool
	at       time.Time // when it was told

	due   []bool // by receiver: it is to be sent
	taken []int  // by receiver: how many times it was
}

func newTold(receivers int) *told { return &told{byKey: map[key]*list.Element{}, receivers: receivers} }

// add remembers an alert in place of what was known of it, and gives the resolutions that had to go for it before all
// receivers took them, counted by receiver. An open alert that has to go is in the store.
func (t *told) add(a telemetry.Alert, resolved bool, at time.Time) (lost int) {
	t.forget(keyOf(&a))
	for len(t.byKey) >= toldAtMost {
		oldest := t.resolved.Front()
		if oldest == nil {
			oldest = t.open.Front()
		}
		lost += t.drop(oldest)
	}
	n := &news{alert: a, resolved: resolved, at: at, due: make([]bool, t.receivers), taken: make([]int, t.receivers)}
	for i := range n.due {
		n.due[i] = true
	}
	t.byKey[keyOf(&a)] = t.listOf(n).PushBack(n)
	return lost
}

func (t *told) listOf(n *news) *list.List {
	if n.resolved {
		return &t.resolved
	}
	return &t.open
}

func (t *told) forget(k key) {
	if e := t.byKey[k]; e != nil {
		t.remove(e)
	}
}

func (t *told) remove(e *list.Element) *news {
	n := e.Value.(*news)
	t.listOf(n).Remove(e)
	delete(t.byKey, keyOf(&n.alert))
	return n
}

// drop removes what may not have been taken, and gives by how many receivers it was not.
func (t *told) drop(e *list.Element) (lost int) {
	n := t.remove(e)
	if !n.resolved {
		return 0
	}
	for _, times := range n.taken {
		if times == 0 {
			lost++
		}
	}
	return lost
}

// over tells whether an alert that was read as open is over: its end was told of since.
func (t *told) over(a *telemetry.Alert) bool {
	e := t.byKey[keyOf(a)]
	if e == nil {
		return false
	}
	n := e.Value.(*news)
	return n.resolved && a.OpenedMs <= n.alert.OpenedMs
}

// stored forgets what a list of open alerts, whose reading began at the given time, makes needless: open alerts that
// were told of before, and the end of an alert that has opened anew.
func (t *told) stored(open []telemetry.Alert, began time.Time) {
	for e := t.open.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*news).at.Before(began) {
			t.remove(e)
		}
		e = next
	}
	if t.resolved.Len() == 0 {
		return
	}
	for i := range open {
		if e := t.byKey[keyOf(&open[i])]; e != nil {
			if n := e.Value.(*news); n.resolved && n.alert.OpenedMs < open[i].OpenedMs {
				t.remove(e)
			}
		}
	}
}

// expire forgets resolutions that are old by now and were told of before the last list was read, and gives those that a
// receiver never took.
func (t *told) expire(now, read time.Time) (lost int) {
	for e := t.resolved.Front(); e != nil; {
		n := e.Value.(*news)
		if now.Sub(n.at) < toldFor || !n.at.Before(read) {
			break
		}
		next := e.Next()
		lost += t.drop(e)
		e = next
	}
	return lost
}

// again makes due what has to be sent once more: each open alert, and each resolution until it was taken twice, because
// another process may have posted the alert as open with what it read just before, and an Alertmanager may have lost what
// it took in a crash.
func (t *told) again() {
	for e := t.open.Front(); e != nil; e = e.Next() {
		n := e.Value.(*news)
		for i := range n.due {
			n.due[i] = true
		}
	}
	for e := t.resolved.Front(); e != nil; e = e.Next() {
		n := e.Value.(*news)
		for i := range n.due {
			n.due[i] = n.taken[i] < takenTwice
		}
	}
}

// take gives at most so many that are due for a receiver, ends of alerts first: they are what nobody else tells of.
func (t *told) take(receiver, most int) (due []*news) {
	for _, l := range [...]*list.List{&t.resolved, &t.open} {
		for e := l.Front(); e != nil && len(due) < most; e = e.Next() {
			if n := e.Value.(*news); n.due[receiver] {
				n.due[receiver] = false
				due = append(due, n)
			}
		}
	}
	return due
}
