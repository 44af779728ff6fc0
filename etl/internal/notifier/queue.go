package notifier

import (
	"container/list"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	queueLimit       = 10_000           // notifications
	resolvedAge      = 15 * time.Minute // after which a resolved alert leaves the queue
	resolvedAccepted = 2                // times that an Alertmanager must accept a resolved alert; see queue.repeat
)

// key identifies an alert as Alertmanager does, by its labels.
type key struct {
	fleet, device string
	alertType     telemetry.AlertType
	severity      telemetry.Severity
}

func keyOf(a *telemetry.Alert) key { return key{a.FleetID, a.DeviceID, a.Type, a.Severity} }

// queue holds the last notification of each alert: firing ones until a read of the store has them, resolved ones, which
// the store does not list, until every Alertmanager accepted them. A resolved one stays somewhat longer, because a list
// of open alerts that was read earlier may still contain the alert.
type queue struct {
	byKey            map[key]*list.Element
	firing, resolved list.List // of *notification, the oldest first
	clients          int
}

// notification is an alert in its state at the time of the notification. A notification that was read from the store
// has no delivery state.
type notification struct {
	alert telemetry.Alert
	at    time.Time // when it was queued

	due      []bool // by client: to be sent
	accepted []int  // by client: times that the Alertmanager accepted it
}

func (n *notification) queued() bool { return n.due != nil }

func newQueue(clients int) *queue { return &queue{byKey: map[key]*list.Element{}, clients: clients} }

// add queues an alert in place of its last notification. It returns how many deliveries of resolved alerts were lost to
// the limit. A firing alert that is pushed out is not lost, since the store has it.
func (q *queue) add(a telemetry.Alert, at time.Time) (lost int) {
	if e := q.byKey[keyOf(&a)]; e != nil {
		q.remove(e)
	}
	for len(q.byKey) >= queueLimit {
		oldest := q.resolved.Front()
		if oldest == nil {
			oldest = q.firing.Front()
		}
		lost += q.drop(oldest)
	}
	n := &notification{alert: a, at: at, due: make([]bool, q.clients), accepted: make([]int, q.clients)}
	for i := range n.due {
		n.due[i] = true
	}
	q.byKey[keyOf(&a)] = q.listOf(n).PushBack(n)
	return lost
}

func (q *queue) listOf(n *notification) *list.List {
	if n.alert.EndedMs != 0 {
		return &q.resolved
	}
	return &q.firing
}

func (q *queue) remove(e *list.Element) *notification {
	n := e.Value.(*notification)
	q.listOf(n).Remove(e)
	delete(q.byKey, keyOf(&n.alert))
	return n
}

// drop removes a notification and returns how many clients had not delivered it, 0 for a firing alert.
func (q *queue) drop(e *list.Element) (lost int) {
	n := q.remove(e)
	if n.alert.EndedMs == 0 {
		return 0
	}
	for _, times := range n.accepted {
		if times == 0 {
			lost++
		}
	}
	return lost
}

// isResolved reports whether the queue has the end of an alert that was read as open.
func (q *queue) isResolved(a *telemetry.Alert) bool {
	e := q.byKey[keyOf(a)]
	if e == nil {
		return false
	}
	last := &e.Value.(*notification).alert
	return last.EndedMs != 0 && a.OpenedMs <= last.OpenedMs
}

// reconcile removes what a list of open alerts makes redundant: firing alerts that were queued before its read started,
// and the end of an alert that has opened again.
func (q *queue) reconcile(open []telemetry.Alert, readAt time.Time) {
	for e := q.firing.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*notification).at.Before(readAt) {
			q.remove(e)
		}
		e = next
	}
	if q.resolved.Len() == 0 {
		return
	}
	for i := range open {
		if e := q.byKey[keyOf(&open[i])]; e != nil {
			if last := &e.Value.(*notification).alert; last.EndedMs != 0 && last.OpenedMs < open[i].OpenedMs {
				q.remove(e)
			}
		}
	}
}

// expire removes old resolved alerts that were queued before the last read of open alerts. It returns how many
// deliveries were lost.
func (q *queue) expire(now, readAt time.Time) (lost int) {
	for e := q.resolved.Front(); e != nil; {
		n := e.Value.(*notification)
		if now.Sub(n.at) < resolvedAge || !n.at.Before(readAt) {
			break
		}
		next := e.Next()
		lost += q.drop(e)
		e = next
	}
	return lost
}

// repeat makes due again each firing alert, and each resolved alert until it was accepted twice. Another instance may
// send the alert as firing from a list that it read just before, and an Alertmanager may lose an alert in a crash.
func (q *queue) repeat() {
	for e := q.firing.Front(); e != nil; e = e.Next() {
		n := e.Value.(*notification)
		for i := range n.due {
			n.due[i] = true
		}
	}
	for e := q.resolved.Front(); e != nil; e = e.Next() {
		n := e.Value.(*notification)
		for i := range n.due {
			n.due[i] = n.accepted[i] < resolvedAccepted
		}
	}
}

// take returns at most limit notifications that are due for a client, resolved alerts first, because nothing else
// reports those.
func (q *queue) take(client, limit int) (due []*notification) {
	for _, l := range [...]*list.List{&q.resolved, &q.firing} {
		for e := l.Front(); e != nil && len(due) < limit; e = e.Next() {
			if n := e.Value.(*notification); n.due[client] {
				n.due[client] = false
				due = append(due, n)
			}
		}
	}
	return due
}
