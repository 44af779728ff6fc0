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

// portsFree returns an error that names every port of the nodes in use.
func portsFree(nodes []Node) error {
	var errs []error
	for _, n := range nodes {
		if n.Network != "" {
			continue // no other program is in that network
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
				errs = append(errs, fmt.Errorf("%s, of node %d, is in use by another program: end it (ss -ltnp 'sport = :%d' shows it) or set %s",
					at, n.N, p.port, p.setting))
			case err != nil:
				errs = append(errs, fmt.Errorf("%s, of node %d, is not available: %w: set %s or --first-address (DEV_FIRST_ADDRESS)",
					at, n.N, err, p.setting))
			default:
				l.Close()
			}
		}
	}
	return errors.Join(errs...)
}

// answersCQL reports whether a node responds to OPTIONS, the CQL request that needs no session. Frames are as in section 2 of
// native_protocol_v4.spec: version, flags, stream (2), opcode, length (4).
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
		_ = conn.SetDeadline(deadline) // a broken connection fails below
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
