package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// portsFree tells every port of the nodes that something else holds.
func portsFree(nodes []Node) error {
	var errs []error
	for _, n := range nodes {
		if n.Network != "" {
			continue // nobody else is there
		}
		for _, p := range []struct {
			addr    netip.Addr
			port    int
			setting string
		}{
			{n.Address, n.CQLPort, "--cql-port (DEV_CQL_PORT)"},
			{n.Address, n.StoragePort, "--storage-port (DEV_STORAGE_PORT)"},
			{n.Address, n.MetricsPort, "--metrics-port (DEV_METRICS_PORT)"},
			{netip.AddrFrom4([4]byte{127, 0, 0, 1}), n.JMXPort, "--jmx-port (DEV_JMX_PORT)"},
		} {
			at := netip.AddrPortFrom(p.addr, uint16(p.port))
			l, err := net.Listen("tcp4", at.String())
			switch {
			case errors.Is(err, syscall.EADDRINUSE):
				errs = append(errs, fmt.Errorf("%s, of node %d, is in use by a process that is none of this cluster's: end it (ss -ltnp 'sport = :%d' names it) or set %s",
					at, n.N, p.port, p.setting))
			case err != nil:
				errs = append(errs, fmt.Errorf("%s, of node %d, cannot be listened on: %w: set %s or --first-address (DEV_FIRST_ADDRESS)",
					at, n.N, err, p.setting))
			default:
				l.Close()
			}
		}
	}
	return errors.Join(errs...)
}

// answersCQL asks for the server's options, the one CQL request that needs no session, and says whether they come.
// Frames are as in section 2 of native_protocol_v4.spec: version, flags, stream (2), opcode, length (4).
func answersCQL(ctx context.Context, at netip.AddrPort) bool {
	const opOptions, opSupported = 0x05, 0x06
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // a connection that is broken fails below
	}
	if _, err := conn.Write([]byte{0x04, 0, 0, 0, opOptions, 0, 0, 0, 0}); err != nil {
		return false
	}
	var head [9]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return false
	}
	return head[0] == 0x84 && head[4] == opSupported
}
