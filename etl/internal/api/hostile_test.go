package api

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
)

// raw connects to the server without an HTTP client.
func (r *fixture) raw() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Listener.Addr().String())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

func (r *fixture) works() {
	r.t.Helper()
	require.Equal(r.t, 200, r.post(line(fmt.Sprint("works-", time.Now().UnixNano()), 0)).status)
}

// spaces is a body of spaces that counts what was read.
type spaces struct {
	left int64
	sent atomic.Int64
}

func (e *spaces) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), e.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	e.left -= n
	e.sent.Add(n)
	return int(n), nil
}

func TestHugeBodyIsRejectedEarly(t *testing.T) {
	r := start(t)
	for name, announced := range map[string]bool{"announced": true, "in chunks": false} {
		t.Run(name, func(t *testing.T) {
			body := &spaces{left: 100 << 20}
			request, err := http.NewRequest(http.MethodPost, r.url+"/v1/telemetry", body)
			require.NoError(t, err)
			request.Header.Set("Authorization", "Bearer "+r.token)
			if announced {
				request.ContentLength = 100 << 20
			}
			response, err := r.client.Do(request)
			if err == nil { // else the server closed the connection during the upload
				require.Equal(t, 413, response.StatusCode)
				response.Body.Close()
			}
			require.Less(t, body.sent.Load(), int64(32<<20), "the server stops reading")
			r.works()
		})
	}
	require.Equal(t, 2.0, r.metric("fleet_etl_api_requests_total", "route", "telemetry", "code", "413"))
}

func TestGzipBombTakesNoMemory(t *testing.T) {
	r := start(t)
	bomb := bytes.NewBuffer(bytes.Repeat(gzipped(strings.Repeat(" ", 1<<20)).Bytes(), 256))
	require.Less(t, bomb.Len(), 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := r.post(bomb.String(), "Content-Encoding", "gzip")
	runtime.ReadMemStats(&after)
	require.Equal(t, 413, got.status)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
	r.works()
}

func TestSlowSendersAreDisconnected(t *testing.T) {
	r := start(t, func(o *settings) {
		o.server.Limits.HeaderTimeout, o.server.Limits.ReadTimeout, o.server.Limits.IdleTimeout = 100*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	})
	head := "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + r.token + "\r\n"
	for name, c := range map[string]struct{ sent, want string }{
		"nothing":              {"", ""},
		"half a header":        {head, ""},
		"half a body":          {head + "Content-Length: 100\r\n\r\n{", "HTTP/1.1 408 "},
		"half a chunk":         {head + "Transfer-Encoding: chunked\r\n\r\n40\r\n{", "HTTP/1.1 408 "},
		"idle after a request": {head + "Content-Length: 2\r\n\r\n[]", "HTTP/1.1 200 "},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.raw()
			_, err := io.WriteString(conn, c.sent)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
			answered, err := io.ReadAll(conn) // until the server closes the connection
			require.NotErrorIs(t, err, errTimeout)
			require.True(t, strings.HasPrefix(string(answered), c.want), "%q", answered)
		})
	}
	r.works()
	appended, _ := r.spool.counts()
	require.Equal(t, 1, appended)
}

var errTimeout = func() error {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_ = a.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := a.Read(make([]byte, 1))
	return err
}()

func TestIncompleteBodyIsNotStored(t *testing.T) {
	r := start(t)
	conn := r.raw()
	body := line("a", 0) + "\n" + line("b", 0)[:20]
	_, err := fmt.Fprintf(conn, "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", r.token, len(body)+50, body)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	answered, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answered), "HTTP/1.1 400 ")
	require.Contains(t, string(answered), `incomplete_body"`)
	appended, _ := r.spool.counts()
	require.Zero(t, appended)
}

func TestIdleConnectionsAreEvicted(t *testing.T) {
	const limit = 50
	r := start(t, func(o *settings) { o.server.Limits.MaxConnections = limit })
	for range 10 * limit {
		r.raw()
	}
	r.works()
	require.LessOrEqual(t, r.metric("fleet_etl_api_connections"), float64(limit+5))
	require.GreaterOrEqual(t, r.metric("fleet_etl_api_connections_evicted_total"), float64(9*limit))

	// The connection with the latest request is closed last.
	kept := r.raw()
	ask := func() {
		_, err := fmt.Fprintf(kept, "GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		response, err := http.ReadResponse(bufio.NewReader(kept), nil)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
	}
	ask()
	for range limit / 2 {
		r.raw()
	}
	r.works()
	ask()
}

// Connections that wait for their peer lock out no other sender, whatever they wait for.
func TestHeldConnectionsDoNotLockOut(t *testing.T) {
	const limit = 50
	for name, c := range map[string]struct{ head, body string }{
		"nothing":                     {},
		"half a header":               {head: "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\n"},
		"a slow body":                 {head: "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 1000\r\n\r\n"},
		"a slow body without a token": {head: "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"},
		"a body that trickles":        {"POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 1000\r\n\r\n", " "},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(o *settings) { o.server.Limits.MaxConnections = limit })
			var held []net.Conn
			hold := func() {
				conn := r.raw()
				_, _ = io.WriteString(conn, strings.Replace(c.head, "TOKEN", r.token, 1)) // it may be closed already
				held = append(held, conn)
			}
			for range 2 * limit {
				hold()
			}
			for range limit {
				r.client.CloseIdleConnections() // a device that connects for each record
				r.works()
				hold()
				for _, conn := range held[len(held)-limit:] {
					_, _ = io.WriteString(conn, c.body)
				}
			}
			require.LessOrEqual(t, r.metric("fleet_etl_api_connections"), float64(limit+5))
		})
	}
}

func TestResponseWithoutTokenClosesConnection(t *testing.T) {
	r := start(t)
	for name, c := range map[string]struct{ request, want string }{
		"no token":          {"POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "401"},
		"in chunks":         {"POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{", "401"},
		"an unknown token":  {"GET /v1/fleets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n", "401"},
		"an unknown path":   {"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "404"},
		"another method":    {"PUT /v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "405"},
		"a path to clean":   {"POST //v1/../v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "307"},
		"a public document": {"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := r.raw()
			_, err := io.WriteString(conn, c.request)
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second))) // less than the time that a body has
			answered, err := io.ReadAll(conn)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection is open")
			require.Contains(t, string(answered), "HTTP/1.1 "+c.want)
			require.Contains(t, string(answered), "Connection: close")
		})
	}
}

func TestFullSpoolRecovers(t *testing.T) {
	r := start(t)
	for name, c := range map[string]struct {
		fault error
		code  string
	}{"full": {fmt.Errorf("append: %w", spool.ErrFull), "spool_full"}, "a broken disk": {errors.New("input/output error"), "spool_failed"}} {
		t.Run(name, func(t *testing.T) {
			r.spool.set(c.fault, nil)
			record := line("device-"+c.code, 0)
			for path, body := range map[string]string{
				"/v1/telemetry": record, "/?id=a&lat=1&lon=2": "", "/v1/owntracks?u=a": fmt.Sprintf(`{"_type":"location","lat":1,"lon":2,"tst":%d}`, time.Now().Unix()),
			} {
				got := r.do("POST", path, r.token, strings.NewReader(body))
				require.Equal(t, 503, got.status)
				require.Equal(t, c.code, got.code)
				require.NotEmpty(t, got.header.Get("Retry-After"))
			}
			r.spool.set(nil, nil)
			got := r.post(record)
			require.Equal(t, 200, got.status)
			require.Equal(t, 1, got.Accepted, "the retry of a record that was not stored is not a duplicate")
		})
	}
	require.Equal(t, 6.0, r.metric("fleet_etl_api_spool_append_errors_total"))
	require.Equal(t, 1, strings.Count(r.logs.String(), "request failed"), "not logged once per request")
}

func TestRequestThatNeverFitsIntoTheSpoolIsNotRetried(t *testing.T) {
	r := start(t)
	r.spool.set(fmt.Errorf("append: %w: 17000000 bytes", spool.ErrTooLarge), nil)
	got := r.post(line("a", 0))
	require.Equal(t, 413, got.status, got.body)
	require.Equal(t, "too_large", got.code)
	require.Empty(t, got.header.Get("Retry-After"))
	require.Contains(t, got.body, "the records of the request take more than 16777216 bytes in the spool")
	require.Contains(t, got.body, "split it into several requests")
	require.Zero(t, r.metric("fleet_etl_api_spool_append_errors_total"))
	r.spool.set(nil, nil)
	r.works()
}

func TestHangingSpoolDoesNotBlockRequests(t *testing.T) {
	r := start(t, func(o *settings) { o.ingest.Limits.AppendTimeout = 100 * time.Millisecond })
	stuck := make(chan struct{})
	r.spool.set(nil, stuck)
	var wg sync.WaitGroup
	started := time.Now()
	for i := range 20 {
		wg.Go(func() {
			got := r.post(line(fmt.Sprint("a", i), 0))
			if got.status != 503 || got.code != "spool_slow" {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	wg.Wait()
	require.Less(t, time.Since(started), 5*time.Second)
	r.spool.set(nil, nil)
	close(stuck)
	r.works()
	items, _ := r.arrived(1)
	require.Len(t, items, 1)
}

func TestMemoryOfRequestsIsBounded(t *testing.T) {
	stuck := make(chan struct{})
	r := start(t, func(o *settings) {
		o.ingest.Limits.MaxBody, o.ingest.Limits.MaxMemory = 64<<10, 400<<10
	})
	r.spool.set(nil, stuck)
	waiting := make(chan reply, 2)
	body := func(device string) io.Reader { return strings.NewReader(line(device, 0) + strings.Repeat(" ", 60<<10)) }
	go func() { waiting <- r.do("POST", "/v1/telemetry", r.token, body("a")) }()
	require.Eventually(t, func() bool { return r.spool.stuckAppends() == 1 }, 10*time.Second, time.Millisecond)
	got := r.do("POST", "/v1/telemetry", r.token, body("b"))
	require.Equal(t, 429, got.status, got.body)
	require.Equal(t, "rate_limited", got.code)
	go func() { waiting <- r.do("POST", "/v1/telemetry?fleet_id=suzhou", r.all, body("c")) }()
	require.Eventually(t, func() bool { return r.spool.stuckAppends() == 2 }, 10*time.Second, time.Millisecond, "another sender has memory left")
	require.Greater(t, r.metric("fleet_etl_api_memory_bytes", "use", "requests"), 360e3)
	r.spool.set(nil, nil)
	close(stuck)
	for range 2 {
		require.Equal(t, 200, (<-waiting).status)
	}
	for range 3 {
		require.Equal(t, 200, r.do("POST", "/v1/telemetry", r.token, body("b")).status, "the memory is free again")
	}
	require.Zero(t, r.metric("fleet_etl_api_memory_bytes", "use", "requests"))
}

func TestTLS(t *testing.T) {
	lent := httptest.NewTLSServer(nil)
	certificates, roots := lent.TLS.Certificates, lent.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	lent.Close()
	r := start(t, func(o *settings) {
		o.server.TLS = &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS12}
	})
	plain := r.raw()
	_, err := io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	answered, _ := io.ReadAll(plain)
	require.Contains(t, string(answered), "HTTP/1.0 400 ")

	r.url = strings.Replace(r.url, "http:", "https:", 1)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	r.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	r.works()
}
