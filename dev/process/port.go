package process

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Port is an address on which a program listens.
type Port struct {
	Address string // host:port
	Of      string // the program, for messages
	Setting string // chooses another address; empty: none
}

// FreeAddresses returns n different addresses of this machine, host:port, on which no program listens.
func FreeAddresses(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // at the end, so that the addresses differ
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// PortsFree returns an error that names every address in use.
func PortsFree(ports ...Port) error {
	var errs []error
	for _, p := range ports {
		l, err := net.Listen("tcp", p.Address)
		if err == nil {
			l.Close()
			continue
		}
		problem := "is not available: " + err.Error() + ": change it"
		if errors.Is(err, syscall.EADDRINUSE) {
			_, port, _ := net.SplitHostPort(p.Address)
			problem = "is in use by another program: end it (ss -ltnp 'sport = :" + port + "' shows it)"
		}
		if p.Setting != "" {
			problem += " or set " + p.Setting
		}
		errs = append(errs, fmt.Errorf("%s, of %s, %s", p.Address, p.Of, problem))
	}
	return errors.Join(errs...)
}
