package process

import (
	"fmt"
	"net"
)

// PortFree returns an error if the address, host:port, of the named program is in use.
func PortFree(name, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		_, port, _ := net.SplitHostPort(address)
		return fmt.Errorf("%s, of %s, is not available: %w: end the program that uses it (ss -ltnp 'sport = :%s' shows it)", address, name, err, port)
	}
	return l.Close()
}
