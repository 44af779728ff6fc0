package api

import (
	"container/list"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// connections bounds the number of connections. A server that only stopped to accept would lock out honest senders while one
// peer holds all connections. So a new connection evicts one that waits for its peer: an idle one, or one whose peer sends or
// reads slowly. It is one of the address with the most connections, the one that began to wait, or its request, first.
type connections struct {
	limit   int
	open    prometheus.Gauge
	evicted prometheus.Counter

	mu      sync.Mutex
	closing bool
	changes uint64 // number of state changes
	all     map[net.Conn]*connection
	byPeer  map[netip.Addr]*list.List // connections of an address, the one that changed its state first first
}

type connection struct {
	net.Conn
	peer    netip.Addr
	place   *list.Element // in byPeer
	changed uint64        // number of its last state change
	busy    int           // requests for which the server works
	idle    bool
	evicted bool
}

func newConnections(limit int, reg prometheus.Registerer) *connections {
	register := promutil.With(reg)
	return &connections{
		limit: limit, all: map[net.Conn]*connection{}, byPeer: map[netip.Addr]*list.List{},
		open: register.Gauge("fleet_etl_api_connections", "Open connections to the HTTP API."),
		evicted: register.Counter("fleet_etl_api_connections_evicted_total",
			"Connections closed in favor of new ones, of the address with the most connections first."),
	}
}

// peerOf returns the address of the other end. A site with IPv6 has a /64, so that counts as one address.
func peerOf(conn net.Conn) netip.Addr {
	address, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	peer := address.Addr().Unmap()
	if site, err := peer.Prefix(64); err == nil && peer.Is6() {
		peer = site.Addr()
	}
	return peer
}

// state is the ConnState hook of http.Server.
func (c *connections) state(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.all[conn]
	switch state {
	case http.StateNew, http.StateActive, http.StateIdle:
		if one == nil {
			one = c.add(conn)
		}
		c.changes++
		one.changed, one.idle = c.changes, state != http.StateActive
		c.byPeer[one.peer].MoveToBack(one.place)
	default:
		if one != nil {
			c.remove(one)
		}
	}
	c.open.Set(float64(len(c.all)))
	switch {
	case state != http.StateNew:
	case c.closing:
		closeNow(conn)
	case len(c.all) > c.limit:
		// When the server works for all others, it closes one of an address with more connections than the new one's.
		victim := c.victim(false)
		if busy := c.victim(true); victim == one && c.byPeer[busy.peer].Len() > c.byPeer[one.peer].Len() {
			victim = busy
		}
		one = victim
		one.evicted = true
		c.evicted.Inc()
		closeNow(one.Conn)
	}
}

func (c *connections) add(conn net.Conn) *connection {
	one := &connection{Conn: conn, peer: peerOf(conn)}
	if c.byPeer[one.peer] == nil {
		c.byPeer[one.peer] = list.New()
	}
	one.place = c.byPeer[one.peer].PushBack(one)
	c.all[conn] = one
	return one
}

func (c *connections) remove(one *connection) {
	delete(c.all, one.Conn)
	if c.byPeer[one.peer].Remove(one.place); c.byPeer[one.peer].Len() == 0 {
		delete(c.byPeer, one.peer)
	}
}

// victim returns the connection to evict. There is one: the server does not work for the new connection yet.
func (c *connections) victim(busy bool) (victim *connection) {
	most := 0
	for _, all := range c.byPeer {
		if all.Len() < most {
			continue
		}
		for element := all.Front(); element != nil; element = element.Next() {
			one := element.Value.(*connection)
			if one.busy > 0 && !busy || one.evicted {
				continue
			}
			if all.Len() > most || one.changed < victim.changed {
				victim, most = one, all.Len()
			}
			break
		}
	}
	return victim
}

// closeIdle closes the connections without a request in progress, and all connections that open later.
func (c *connections) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	for _, one := range c.all {
		if one.idle {
			closeNow(one.Conn)
		}
	}
}

// closeNow closes a connection without the closing message of TLS, which would wait for a slow peer.
func closeNow(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}

type connectionKey struct{}

// context is the ConnContext hook of http.Server.
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// work notes that the server works for a request of a connection, or with -1 that it does not any more.
func (c *connections) work(conn net.Conn, more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.all[conn]; one != nil {
		one.busy += more
	}
}

// serve calls a handler, and notes when it waits for its peer.
func (c *connections) serve(handler http.Handler, w http.ResponseWriter, r *http.Request) {
	conn, ok := r.Context().Value(connectionKey{}).(net.Conn)
	if !ok {
		handler.ServeHTTP(w, r)
		return
	}
	c.work(conn, 1)
	defer c.work(conn, -1)
	wait := func(transfer func()) {
		c.work(conn, -1)
		defer c.work(conn, 1)
		transfer()
	}
	r = r.WithContext(r.Context()) // package http keeps its own body
	r.Body = waitingBody{r.Body, wait}
	handler.ServeHTTP(waitingWriter{w, wait}, r)
}

type waitingBody struct {
	io.ReadCloser
	wait func(transfer func())
}

// Read implements io.Reader.
func (b waitingBody) Read(p []byte) (n int, err error) {
	b.wait(func() { n, err = b.ReadCloser.Read(p) })
	return n, err
}

type waitingWriter struct {
	http.ResponseWriter
	wait func(transfer func())
}

// Write implements http.ResponseWriter.
func (w waitingWriter) Write(p []byte) (n int, err error) {
	w.wait(func() { n, err = w.ResponseWriter.Write(p) })
	return n, err
}

// FlushError implements the interface of http.ResponseController.
func (w waitingWriter) FlushError() (err error) {
	w.wait(func() { err = http.NewResponseController(w.ResponseWriter).Flush() })
	return err
}

// Unwrap lets http.ResponseController reach the connection.
func (w waitingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
