package process

import (
	"fmt"
	"net"
)

// PortFree tells when something else holds the address, host:port, that a program of this name is to listen on.
func PortFree(name, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		_, port, _ := net.SplitHostPort(address)
		return fmt.Errorf("%s, of %s, can't be listened on: %w: end what uses it (ss -ltnp 'sport = :%s' names it)", address, name, err, port)
	}
	return l.Close()
}
