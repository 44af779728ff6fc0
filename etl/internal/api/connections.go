package api

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// connections bounds the number of connections. A server that only stopped to accept would lock out honest senders while
// one peer holds all connections. So a new connection evicts the one that has been idle for longest.
type connections struct {
	limit   int
	open    prometheus.Gauge
	evicted prometheus.Counter

	mu      sync.Mutex
	closing bool
	all     map[net.Conn]*list.Element // nil for a connection with a request in progress
	idle    list.List                  // the others, the longest idle first
}

func newConnections(limit int, reg prometheus.Registerer) *connections {
	register := promutil.With(reg)
	return &connections{
		limit: limit, all: map[net.Conn]*list.Element{},
		open: register.Gauge("fleet_etl_api_connections", "Open connections to the HTTP API."),
		evicted: register.Counter("fleet_etl_api_connections_evicted_total",
			"Connections closed in favor of new ones, the longest idle first."),
	}
}

// state is the ConnState hook of http.Server.
func (c *connections) state(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element := c.all[conn]; element != nil {
		c.idle.Remove(element)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		c.all[conn] = c.idle.PushBack(conn)
	case http.StateActive:
		c.all[conn] = nil
	default:
		delete(c.all, conn)
	}
	c.open.Set(float64(len(c.all)))
	switch {
	case state != http.StateNew:
	case c.closing:
		closeNow(conn)
	case len(c.all) > c.limit:
		longest := c.idle.Remove(c.idle.Front()).(net.Conn) // the new one, if all others have requests in progress
		c.all[longest] = nil
		c.evicted.Inc()
		closeNow(longest)
	}
}

// closeIdle closes the connections without a request in progress, and all connections that open later.
func (c *connections) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	for element := c.idle.Front(); element != nil; element = element.Next() {
		closeNow(element.Value.(net.Conn))
	}
}

// closeNow closes a connection without the closing message of TLS, which would wait for a slow peer.
func closeNow(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}
