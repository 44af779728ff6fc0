package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

func (d *Demo) socket() string { return d.file("socket") }

// listen takes requests to end the demo. A second demo finds the first by it.
func (d *Demo) listen(end func()) (ended func(), err error) {
	if conn, err := net.Dial("unix", d.socket()); err == nil {
		_ = conn.Close() // which ends nothing: a request is a line
		return nil, errors.New("a demo is running already: end it with make demo-down")
	}
	if err := os.Remove(d.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that a demo left: %w", err)
	}
	listener, err := net.Listen("unix", d.socket())
	if err != nil {
		return nil, fmt.Errorf("listen for make demo-down: %w", err)
	}
	var waiting []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if line, _ := bufio.NewReader(conn).ReadString('\n'); line == "end\n" {
				waiting = append(waiting, conn)
				end()
				continue
			}
			_ = conn.Close()
		}
	}()
	return func() {
		_ = listener.Close()
		<-done
		for _, conn := range waiting {
			_ = conn.Close()
		}
	}, nil
}

// Down asks the demo to end and waits for it. Where none runs, it stops what one may have left.
func (d *Demo) Down(ctx context.Context) error {
	conn, err := net.Dial("unix", d.socket())
	if err != nil {
		d.printf("no demo is running\n")
		return errors.Join(d.stopLeft(ctx), d.cluster.Down(ctx, false))
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(conn, "end\n"); err != nil {
		return fmt.Errorf("ask the demo to end: %w", err)
	}
	_, _ = conn.Read(make([]byte, 1)) // until it closes: it says nothing
	if ctx.Err() == nil {
		d.printf("the demo has ended\n")
	}
	return ctx.Err()
}
