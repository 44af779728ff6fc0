package ingest

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// connections bounds how many connections there are. A server that just stopped to accept would be closed to honest
// senders as long as somebody holds all of them; so the one that has been quiet for longest makes room for a new one.
type connections struct {
	limit   int
	open    prometheus.Gauge
	evicted prometheus.Counter

	mu      sync.Mutex
	closing bool
	all     map[net.Conn]*list.Element // nil for one that has a request under way
	quiet   list.List                  // the others, that which has been so for longest first
}

func newConnections(limit int, open prometheus.Gauge, evicted prometheus.Counter) *connections {
	return &connections{limit: limit, open: open, evicted: evicted, all: map[net.Conn]*list.Element{}}
}

// state is told by http.Server what becomes of a connection.
func (c *connections) state(conn net.Conn, state http.ConnState) {
	if extra := c.note(conn, state); extra != nil {
		hangUp(extra)
	}
}

// note gives a connection that is to be closed, nil when there is room.
func (c *connections) note(conn net.Conn, state http.ConnState) (extra net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.open.Set(float64(len(c.all))) }()
	if place := c.all[conn]; place != nil {
		c.quiet.Remove(place)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		switch {
		case state != http.StateNew:
		case c.closing:
			extra = conn
		case len(c.all) >= c.limit:
			c.evicted.Inc()
			extra = conn // all others are at work
			if first := c.quiet.Front(); first != nil {
				extra = c.quiet.Remove(first).(net.Conn)
				c.all[extra] = nil
			}
		}
		c.all[conn] = nil
		if extra != conn {
			c.all[conn] = c.quiet.PushBack(conn)
		}
	case http.StateActive:
		c.all[conn] = nil
	default:
		delete(c.all, conn)
	}
	return extra
}

// closeQuiet closes those that have no request under way, and those that are still to come.
func (c *connections) closeQuiet() {
	c.mu.Lock()
	c.closing = true
	var quiet []net.Conn
	for place := c.quiet.Front(); place != nil; place = place.Next() {
		quiet = append(quiet, place.Value.(net.Conn))
	}
	c.mu.Unlock()
	for _, conn := range quiet {
		hangUp(conn)
	}
}

// hangUp closes a connection without a word: TLS would wait for a peer that is in no hurry.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}
