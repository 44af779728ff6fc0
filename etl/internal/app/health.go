package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

type healthCommand struct{}

// Run implements the command. It serves containers that have no curl.
func (healthCommand) Run(p *program) error {
	host, port, err := net.SplitHostPort(p.config.MetricsAddress)
	if err != nil {
		return fmt.Errorf("ETL_METRICS_ADDRESS %q: set it; without it, readiness can't be checked", p.config.MetricsAddress)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/-/ready", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return err
	}
	status := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return errors.New("not ready: " + status)
	}
	fmt.Fprintln(p.Out, status)
	return nil
}
