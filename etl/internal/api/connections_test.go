package api

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

type fakeConn struct {
	net.Conn
	peer   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return fakeAddr(c.peer) }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (a fakeAddr) String() string { return string(a) }

func TestAddressWithMostConnectionsIsEvictedFirst(t *testing.T) {
	c := newConnections(5, prometheus.NewRegistry())
	port := 0
	open := func(address string) *fakeConn {
		port++
		conn := &fakeConn{peer: net.JoinHostPort(address, fmt.Sprint(port))}
		c.state(conn, http.StateNew)
		return conn
	}
	closed := func(all ...*fakeConn) (closed []bool) {
		for _, conn := range all {
			closed = append(closed, conn.closed)
			if conn.closed {
				c.state(conn, http.StateClosed)
			}
		}
		return closed
	}
	honest := open("10.0.0.1")
	c.state(honest, http.StateIdle)
	a, b, busy, d := open("2001:db8::1"), open("2001:db8::2"), open("2001:db8::3"), open("2001:db8::4")
	c.state(busy, http.StateActive)
	c.work(busy, 1)
	c.state(a, http.StateActive) // a request, whose body does not come

	new1 := open("10.0.0.2")
	require.Equal(t, []bool{false, false, true, false, false, false}, closed(honest, a, b, busy, d, new1), "the longest of the site that waits")
	new2 := open("10.0.0.3")
	require.Equal(t, []bool{false, false, false, true, false}, closed(honest, a, busy, d, new2))
	new3 := open("10.0.0.4")
	require.Equal(t, []bool{false, true, false, false}, closed(honest, a, busy, new3))
	require.Equal(t, []bool{false, false}, closed(new1, new2))

	// One of each: the one that is idle for longest.
	new4 := open("10.0.0.5")
	require.Equal(t, []bool{true, false, false, false, false}, closed(honest, busy, new1, new2, new4))
	for _, conn := range []*fakeConn{new1, new2, new3, new4} {
		c.work(conn, 1)
	}
	new5 := open("10.0.0.6")
	require.True(t, new5.closed, "the server works for all others")
	c.work(busy, -1)
	c.state(new5, http.StateClosed)
	open("10.0.0.7")
	require.True(t, busy.closed, "it works for this one no more")
	for _, conn := range []*fakeConn{busy, new1, new2, new3, new4} {
		c.state(conn, http.StateClosed)
	}
	require.Len(t, c.byPeer, 1)

	// The server works for many requests of one address: a new connection of another has room.
	var many []*fakeConn
	for range 4 {
		conn := open("10.0.0.8")
		c.work(conn, 1)
		many = append(many, conn)
	}
	c.work(c.only("10.0.0.7"), 1)
	other := open("10.0.0.9")
	require.Equal(t, []bool{true, false, false, false, false}, closed(append(many, other)...))
	c.work(other, 1)
	again := open("10.0.0.8")
	require.True(t, again.closed, "not one of the address itself")
}

// only returns the connection of an address.
func (c *connections) only(address string) net.Conn {
	return c.byPeer[netip.MustParseAddr(address)].Front().Value.(*connection).Conn
}
