package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
)

func TestShutdownFinishesRequests(t *testing.T) {
	r := start(t)
	stuck := make(chan struct{})
	r.spool.set(nil, stuck)
	under := make(chan reply, 1)
	go func() { under <- r.post(line("a", 0)) }()
	require.Eventually(t, func() bool { return r.spool.stuckAppends() == 1 }, 10*time.Second, time.Millisecond)
	idle := r.raw()
	r.stop()
	_, _ = io.ReadAll(idle) // the server closes an idle connection at once
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", r.Listener.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond, "no new connections")
	select {
	case <-under:
		t.Fatal("answered before it was durable")
	default:
	}
	close(stuck)
	require.Equal(t, 200, (<-under).status)
	require.NoError(t, r.end())
	appended, _ := r.spool.counts()
	require.Equal(t, 1, appended, "it stays in the spool for the next run")
	late := httptest.NewRecorder()
	r.ServeHTTP(late, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Equal(t, 503, late.Code)
	require.NotEmpty(t, late.Header().Get("X-Request-Id"))
}

func TestShutdownAbortsSlowRequests(t *testing.T) {
	r := start(t, func(o *settings) { o.server.Limits.Grace = 50 * time.Millisecond })
	conn := r.raw()
	_, err := fmt.Fprintf(conn, "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", r.token)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		if r.requests.TryLock() {
			r.requests.Unlock()
			return false
		}
		return true
	}, 10*time.Second, time.Millisecond)
	started := time.Now()
	require.NoError(t, r.end())
	require.Less(t, time.Since(started), 5*time.Second)
	require.Contains(t, r.logs.String(), "requests in progress aborted")
}

func TestSpoolErrorStopsServer(t *testing.T) {
	r := start(t, func(o *settings) { o.ingest.Spool = brokenSpool{o.ingest.Spool} })
	require.ErrorContains(t, <-r.ended, "read the spool: input/output error")
	r.ended <- nil
	_, err := net.Dial("tcp", r.Listener.Addr().String())
	require.Error(t, err)
}

type brokenSpool struct{ ingest.Spool }

func (brokenSpool) Next(context.Context) ([]byte, uint64, error) {
	return nil, 0, errors.New("input/output error")
}
