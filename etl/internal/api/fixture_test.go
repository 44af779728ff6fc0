package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/query"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faultySpool is a spool with switchable faults.
type faultySpool struct {
	*spool.Spool
	mu       sync.Mutex
	appended int
	acked    int
	fault    error         // of the next appends
	stuck    chan struct{} // appends wait for it
	waiting  int           // appends that wait
}

func newFaultySpool(t *testing.T, logger logrus.FieldLogger) *faultySpool {
	s, err := spool.Open(t.TempDir(), spool.Options{MaxBytes: 1 << 30}, logger, nil, time.Now)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &faultySpool{Spool: s}
}

func (m *faultySpool) set(fault error, stuck chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.stuck = fault, stuck
}

func (m *faultySpool) Append(ctx context.Context, entry []byte) error {
	m.mu.Lock()
	fault, stuck := m.fault, m.stuck
	m.mu.Unlock()
	if stuck != nil {
		m.count(&m.waiting, 1)
		defer m.count(&m.waiting, -1)
		select {
		case <-stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fault != nil {
		return fault
	}
	m.count(&m.appended, 1)
	return m.Spool.Append(ctx, entry)
}

func (m *faultySpool) Ack(number uint64) {
	m.count(&m.acked, 1)
	m.Spool.Ack(number)
}

func (m *faultySpool) count(n *int, more int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*n += more
}

func (m *faultySpool) stuckAppends() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waiting
}

func (m *faultySpool) counts() (appended, done int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.appended, m.acked
}

// fixture is a running server with a spool, a pipeline that stores at once, and a store.
type fixture struct {
	*Server
	t      *testing.T
	url    string
	spool  *faultySpool
	token  string // fleet wuxi, write
	reader string // fleet wuxi, read
	all    string // all fleets
	second string // fleet wuxi, write
	other  string // fleet suzhou, write
	client *http.Client
	reg    *prometheus.Registry
	logs   *bytes.Buffer
	stop   context.CancelFunc
	ended  chan error

	mu       sync.Mutex
	changed  *sync.Cond
	batches  []pipeline.Batch
	items    []pipeline.Item
	rejected []pipeline.Rejected
}

// settings are what a test can change.
type settings struct {
	server Options
	ingest ingest.Options
	query  query.Options
	run    func(ctx context.Context, s *Server) error // nil: with the pipeline of the fixture
}

func start(t *testing.T, change ...func(*settings)) *fixture {
	r := &fixture{t: t, reg: prometheus.NewRegistry(), logs: &bytes.Buffer{}, ended: make(chan error, 1)}
	logger := logrus.New()
	logger.SetOutput(r.logs)
	r.spool = newFaultySpool(t, logger)
	r.changed = sync.NewCond(&r.mu)
	transport := &http.Transport{}
	r.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.url = "http://" + listener.Addr().String()
	var lines [5]string
	for i, rights := range []string{"wuxi %s", "wuxi %s read", "* %s read,write # the loader", "wuxi %s", "suzhou %s"} {
		token, hash := auth.NewToken()
		*[]*string{&r.token, &r.reader, &r.all, &r.second, &r.other}[i] = token
		lines[i] = fmt.Sprintf(rights, hash)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines[:], "\n")), 0o600))
	tokens, err := auth.Load(path)
	require.NoError(t, err)
	seen := validate.NewDeduplicator(1 << 12)
	var mu sync.Mutex
	o := settings{
		server: Options{Listener: listener, Tokens: tokens, Limits: DefaultLimits(), Logger: logger, Registerer: r.reg, Now: time.Now},
		ingest: ingest.Options{
			Spool: r.spool, Check: validate.NewBounds(nil).Check, CheckOwner: func(string, *telemetry.Record) *telemetry.Rejection { return nil },
			Seen: func(r *telemetry.Record) telemetry.Seen {
				mu.Lock()
				defer mu.Unlock()
				validate.Normalize(r)
				return seen.Add(r)
			},
			Reject: func(_ context.Context, origin string, rejected []pipeline.Rejected) error {
				return r.emit(pipeline.Batch{Origin: origin, Rejected: rejected, Done: func(pipeline.Outcome) {}})
			},
			Limits: ingest.DefaultLimits(), Logger: logger, Registerer: r.reg, Now: time.Now,
		},
		query: query.Options{Store: func() (query.Store, bool) { return nil, false }, Now: time.Now, Logger: logger, Registry: r.reg},
	}
	for _, c := range change {
		c(&o)
	}
	o.server.Query = query.New(o.query)
	t.Cleanup(o.server.Query.Close)
	o.server.Ingest = ingest.New(o.ingest)
	r.Server, err = New(o.server)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	if o.run == nil {
		o.run = func(ctx context.Context, s *Server) error { return s.Run(ctx, r.emit) }
	}
	go func() { r.ended <- o.run(ctx, r.Server) }()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = r.end()
	})
	return r
}

// end stops the server and returns the result of Run.
func (r *fixture) end() error {
	r.stop()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(20 * time.Second):
		r.t.Error("the server does not end")
		return nil
	}
}

func (r *fixture) emit(b pipeline.Batch) error {
	r.mu.Lock()
	r.batches = append(r.batches, b)
	r.items = append(r.items, b.Items...)
	r.rejected = append(r.rejected, b.Rejected...)
	r.changed.Broadcast()
	r.mu.Unlock()
	b.Done(pipeline.Outcome{})
	return nil
}

// arrived waits until the pipeline has received so many records, valid and rejected.
func (r *fixture) arrived(n int) (items []pipeline.Item, rejected []pipeline.Rejected) {
	r.t.Helper()
	timeout := time.AfterFunc(10*time.Second, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.t.Errorf("only %d records and %d rejected have arrived, not %d", len(r.items), len(r.rejected), n)
		n = 0
		r.changed.Broadcast()
	})
	defer timeout.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.items)+len(r.rejected) < n {
		r.changed.Wait()
	}
	return r.items, r.rejected
}

type reply struct {
	status int
	header http.Header
	body   string
	code   string // of the problem
	summary
	problem rest.Details
}

// summary is the JSON of a response, with the counts of a problem all_rejected too.
type summary struct {
	Accepted   int      `json:"accepted"`
	Duplicates int      `json:"duplicates"`
	Rejected   int      `json:"rejected"`
	Ignored    int      `json:"ignored"`
	Results    []result `json:"results"`
}

type result struct {
	Index  int
	Status string
	Reason telemetry.Reason
	Field  string
	Value  string
	Remedy string
}

// do sends a request; headers are name and value in turn.
func (r *fixture) do(method, path, token string, body io.Reader, headers ...string) reply {
	r.t.Helper()
	request, err := http.NewRequest(method, r.url+path, body)
	require.NoError(r.t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	require.NoError(r.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	reply := reply{status: response.StatusCode, header: response.Header, body: string(text)}
	_ = json.Unmarshal(text, &reply.summary) // OwnTracks receives an array
	if response.StatusCode >= http.StatusBadRequest {
		require.Equal(r.t, rest.ProblemType, response.Header.Get("Content-Type"), string(text))
		require.NoError(r.t, json.Unmarshal(text, &reply.problem), string(text))
		require.Equal(r.t, response.StatusCode, reply.problem.Status)
		reply.code = strings.TrimPrefix(reply.problem.Type, rest.TypePrefix)
	}
	return reply
}

func (r *fixture) post(body string, headers ...string) reply {
	r.t.Helper()
	return r.do("POST", "/v1/telemetry", r.token, strings.NewReader(body), headers...)
}

func (r *fixture) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	require.NoError(r.t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue next
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	r.t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func gzipped(text string) *bytes.Buffer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return &b
}

// line is a valid record, so many seconds old.
func line(device string, before int) string {
	return fmt.Sprintf(`{"device_id":%q,"timestamp":%d,"lat":31.5,"lon":120.25,"speed_kmh":36.5}`, device, time.Now().Unix()-int64(before))
}

// bearing is a request with a bearer token.
func bearing(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}
