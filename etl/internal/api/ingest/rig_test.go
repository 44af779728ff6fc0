package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errNoRoom = errors.New("no room")

// memory is a journal in memory, whose faults can be switched.
type memory struct {
	mu      sync.Mutex
	changed *sync.Cond
	entries [][]byte
	next    int
	done    map[uint64]bool
	fault   error         // of the next appends
	stuck   chan struct{} // appends wait for it, whatever their context says
}

func newMemory(entries ...[]byte) *memory {
	m := &memory{done: map[uint64]bool{}, entries: entries}
	m.changed = sync.NewCond(&m.mu)
	return m
}

func (m *memory) set(fault error, stuck chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.stuck = fault, stuck
}

func (m *memory) Append(_ context.Context, entry []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if stuck := m.stuck; stuck != nil {
		m.mu.Unlock()
		<-stuck
		m.mu.Lock()
	}
	if m.fault != nil {
		return m.fault
	}
	m.entries = append(m.entries, entry)
	m.changed.Broadcast()
	return nil
}

func (m *memory) Next(ctx context.Context) ([]byte, uint64, error) {
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.changed.Broadcast()
	})()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.next == len(m.entries) {
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		m.changed.Wait()
	}
	m.next++
	return m.entries[m.next-1], uint64(m.next), nil
}

func (m *memory) Done(number uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done[number] {
		panic("done twice")
	}
	m.done[number] = true
}

func (m *memory) counts() (appended, done int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries), len(m.done)
}

// rig is a source that runs, with a journal in memory and a pipeline that stores at once.
type rig struct {
	*Source
	t       *testing.T
	url     string
	journal *memory
	token   string // of fleet wuxi, may write
	reader  string // of fleet wuxi, may read
	all     string // of all fleets
	client  *http.Client
	reg     *prometheus.Registry
	logs    *bytes.Buffer
	stop    context.CancelFunc
	ended   chan error

	mu      sync.Mutex
	changed *sync.Cond
	batches []pipeline.Batch
	items   []pipeline.Item
	refused []pipeline.Rejected
}

func start(t *testing.T, change ...func(*Options)) *rig {
	r := &rig{t: t, journal: newMemory(), reg: prometheus.NewRegistry(), logs: &bytes.Buffer{}, ended: make(chan error, 1)}
	r.changed = sync.NewCond(&r.mu)
	transport := &http.Transport{}
	r.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.url = "http://" + listener.Addr().String()
	var lines [3]string
	for i, rights := range []string{"wuxi %s", "wuxi %s read", "* %s read,write # the loader"} {
		token, hash := NewToken()
		*[]*string{&r.token, &r.reader, &r.all}[i] = token
		lines[i] = fmt.Sprintf(rights, hash)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines[:], "\n")), 0o600))
	tokens, err := LoadTokens(path)
	require.NoError(t, err)
	logger := logrus.New()
	logger.SetOutput(r.logs)
	seen := validate.NewDeduplicator(1 << 12)
	var mu sync.Mutex
	o := Options{
		Listener: listener, Journal: r.journal, Full: func(err error) bool { return errors.Is(err, errNoRoom) }, Tokens: tokens,
		Check: validate.NewBounds(nil).Check,
		Seen: func(r *telemetry.Record) telemetry.Seen {
			mu.Lock()
			defer mu.Unlock()
			validate.Normalize(r)
			return seen.Add(r.KeyHash(), r.PayloadHash())
		},
		Limits: DefaultLimits(), Logger: logger, Registerer: r.reg,
	}
	for _, c := range change {
		c(&o)
	}
	r.Source, err = New(o)
	require.NoError(t, err)
	if m, ok := o.Journal.(*memory); ok {
		r.journal = m
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.ended <- r.Run(ctx, r.emit) }()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		r.end()
	})
	return r
}

// end stops the source and gives what its Run returned.
func (r *rig) end() error {
	r.stop()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(20 * time.Second):
		r.t.Error("the source does not end")
		return nil
	}
}

func (r *rig) emit(b pipeline.Batch) error {
	r.mu.Lock()
	r.batches = append(r.batches, b)
	r.items = append(r.items, b.Items...)
	r.refused = append(r.refused, b.Rejected...)
	r.changed.Broadcast()
	r.mu.Unlock()
	b.Done(pipeline.Outcome{})
	return nil
}

// arrived waits until so many records, good and refused, have come out of the source.
func (r *rig) arrived(n int) (items []pipeline.Item, refused []pipeline.Rejected) {
	r.t.Helper()
	timeout := time.AfterFunc(10*time.Second, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.t.Errorf("only %d records and %d refused have arrived, not %d", len(r.items), len(r.refused), n)
		n = 0
		r.changed.Broadcast()
	})
	defer timeout.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.items)+len(r.refused) < n {
		r.changed.Wait()
	}
	return r.items, r.refused
}

type reply struct {
	status int
	header http.Header
	body   string
	answer
	problem
}

// do sends a request; headers are name and value in turn.
func (r *rig) do(method, path, token string, body io.Reader, headers ...string) reply {
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
	if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnprocessableEntity {
		_ = json.Unmarshal(text, &reply.answer) // an array of OwnTracks is none
	} else {
		require.NoError(r.t, json.Unmarshal(text, &reply.problem), string(text))
	}
	return reply
}

func (r *rig) post(body string, headers ...string) reply {
	r.t.Helper()
	return r.do("POST", "/v1/telemetry", r.token, strings.NewReader(body), headers...)
}

func (r *rig) metric(name string, labels ...string) float64 {
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

// line is a record that is fine, of now and so many seconds before.
func line(device string, before int) string {
	return fmt.Sprintf(`{"device_id":%q,"timestamp":%d,"lat":31.5,"lon":120.25,"speed_kmh":36.5}`, device, time.Now().Unix()-int64(before))
}
