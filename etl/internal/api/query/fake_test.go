package query

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore answers from memory as the real store does, limits and all.
type fakeStore struct {
	mu       sync.Mutex
	fleets   []string
	devices  []cassandra.Device
	fixes    []cassandra.Telemetry // any order
	alerts   []cassandra.Alert
	hours    []cassandra.Hour
	resolved []resolvedAlert
	open     []cassandra.Alert
	deleted  []deletedAlert

	err   error
	gate  chan struct{} // reads wait for it to be closed, or for the end of their context
	calls int
	fail  int // from this call on; 0: never
	most  int // rows of the largest answer

	sorted   map[string][]cassandra.Telemetry
	sortedOf int
}

// deletedAlert is an alert that was taken off the open ones.
type resolvedAlert struct {
	alertID
	writeTimeUs int64
}

type deletedAlert struct {
	fleet, device, kind string
	writeTimeUs         int64
}

func (f *fakeStore) enter(ctx context.Context) error {
	f.mu.Lock()
	f.calls++
	err, gate := f.err, f.gate
	if f.fail > 0 && f.calls < f.fail {
		err = nil
	}
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return &cassandra.Error{Op: "read", Reason: cassandra.ReasonCanceled, Err: ctx.Err()}
		}
	}
	return err
}

func (f *fakeStore) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fakeStore) Fleets(ctx context.Context) ([]string, error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	return slices.Sorted(slices.Values(f.fleets)), nil
}

func (f *fakeStore) Devices(ctx context.Context, fleetID string, size int, page string) (p cassandra.Page[cassandra.Device], err error) {
	if err := f.enter(ctx); err != nil {
		return p, err
	}
	from := 0
	if page != "" {
		if from, err = strconv.Atoi(page); err != nil {
			return p, &cassandra.Error{Op: "read devices", Reason: cassandra.ReasonInvalid, Err: err}
		}
	}
	to := min(from+size, len(f.devices))
	for _, d := range f.devices[from:to] {
		if d.Status != cassandra.StatusMoved && d.FleetID == fleetID {
			p.Rows = append(p.Rows, d)
		}
	}
	if to < len(f.devices) {
		p.Next = strconv.Itoa(to)
	}
	return p, nil
}

func (f *fakeStore) LatestOfFleet(ctx context.Context, fleetID string) (rows []cassandra.Telemetry, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	for _, t := range f.fixes {
		if t.FleetID == fleetID {
			rows = append(rows, t)
		}
	}
	slices.SortFunc(rows, func(a, b cassandra.Telemetry) int {
		return cmp.Or(strings.Compare(a.DeviceID, b.DeviceID), b.Ts.Compare(a.Ts))
	})
	return slices.CompactFunc(rows, func(a, b cassandra.Telemetry) bool { return a.DeviceID == b.DeviceID }), nil
}

// track is the fixes of a device, newest first; they are sorted anew when there are more.
func (f *fakeStore) track(device string) []cassandra.Telemetry {
	if f.sorted == nil || f.sortedOf != len(f.fixes) {
		f.sorted, f.sortedOf = map[string][]cassandra.Telemetry{}, len(f.fixes)
		for _, t := range f.fixes {
			f.sorted[t.DeviceID] = append(f.sorted[t.DeviceID], t)
		}
		for _, fixes := range f.sorted {
			slices.SortFunc(fixes, func(a, b cassandra.Telemetry) int { return b.Ts.Compare(a.Ts) })
		}
	}
	return f.sorted[device]
}

func (f *fakeStore) History(ctx context.Context, q cassandra.HistoryQuery) (p cassandra.Page[cassandra.Telemetry], err error) {
	if err := f.enter(ctx); err != nil {
		return p, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fixes := f.track(q.DeviceID)
	newest, _ := slices.BinarySearchFunc(fixes, q.To, func(t cassandra.Telemetry, to time.Time) int { return to.Compare(t.Ts) })
	for _, t := range fixes[newest:] {
		if t.Ts.Before(q.From) || q.Limit > 0 && len(p.Rows) == q.Limit {
			break
		}
		p.Rows = append(p.Rows, t)
	}
	if q.Limit > 0 && len(p.Rows) >= q.Limit {
		p.Next = "more"
	}
	f.most = max(f.most, len(p.Rows))
	return p, nil
}

func (f *fakeStore) Alerts(ctx context.Context, q cassandra.AlertQuery) (rows []cassandra.Alert, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.alerts {
		if a.FleetID == q.FleetID && !a.Opened().Before(q.From) && !a.Opened().After(q.To) && (len(q.Severities) == 0 || slices.Contains(q.Severities, a.Severity)) {
			rows = append(rows, a)
		}
	}
	// Severities of one instant and device come in any order.
	slices.SortFunc(rows, func(a, b cassandra.Alert) int {
		return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type), strings.Compare(b.Severity, a.Severity))
	})
	if q.Limit > 0 && len(rows) > q.Limit {
		rows = rows[:q.Limit]
	}
	return rows, nil
}

func (f *fakeStore) ResolveAlert(ctx context.Context, r *cassandra.Alert, writeTimeUs int64) error {
	if err := f.enter(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resolved = append(f.resolved, resolvedAlert{alertIDOf(*r), writeTimeUs})
	for i := range f.alerts {
		if a := &f.alerts[i]; alertIDOf(*a) == alertIDOf(*r) {
			a.Resolved = true
		}
	}
	return nil
}

func (f *fakeStore) OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) (rows []cassandra.Alert, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.open {
		if a.FleetID == fleetID && a.DeviceID == deviceID {
			rows = append(rows, a)
		}
	}
	return rows, nil
}

func (f *fakeStore) DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error {
	if err := f.enter(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deleted = append(f.deleted, deletedAlert{fleetID, deviceID, alertType, writeTimeUs})
	f.open = slices.DeleteFunc(f.open, func(a cassandra.Alert) bool {
		return a.FleetID == fleetID && a.DeviceID == deviceID && a.Type == alertType
	})
	return nil
}

func (f *fakeStore) Analytics(ctx context.Context, fleetID string, first, last cassandra.Day) (hours []cassandra.Hour, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	for _, h := range f.hours {
		if day := cassandra.DayOf(h.Start.UnixMilli()); h.FleetID == fleetID && day >= first && day <= last {
			hours = append(hours, h)
		}
	}
	return hours, nil
}

// noon is the time of all tests.
var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

// testTokens are the tokens of tests: what they are good for, and for which fleet.
var testTokens = map[string]grant{
	"all":    {AllFleets, true, true},
	"a":      {"fleet-a", true, false},
	"a-full": {"fleet-a", true, true},
	"b":      {"fleet-b", true, true},
	"writer": {"fleet-a", false, true},
	"nobody": {"", true, true},
}

type rig struct {
	t      *testing.T
	store  *fakeStore
	api    *API
	mux    *http.ServeMux
	reg    *prometheus.Registry
	now    time.Time
	absent bool // the store has not been reached
}

// newRig serves a store through a cache.
func newRig(t *testing.T, store *fakeStore, change ...func(*Options)) *rig {
	g := &rig{t: t, store: store, mux: http.NewServeMux(), reg: prometheus.NewRegistry(), now: noon}
	o := Options{
		Store: func() (Store, bool) { return store, !g.absent },
		Authorize: func(r *http.Request) (string, bool, bool, bool) {
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			grant, ok := testTokens[cmp.Or(token, r.URL.Query().Get("token"))]
			return grant.fleet, grant.read, grant.write, ok
		},
		Now: func() time.Time { return g.now }, Logger: silent(), Registry: g.reg,
	}
	for _, c := range change {
		c(&o)
	}
	g.api = New(o)
	t.Cleanup(g.api.Close)
	g.api.Mount(g.mux)
	return g
}

func silent() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

func withMemory(t *testing.T) func(*Options) {
	cache, err := NewMemoryCache(1 << 20)
	require.NoError(t, err)
	t.Cleanup(cache.Close)
	return func(o *Options) { o.Cache = cache }
}

// get asks for a path with a token, and headers in pairs.
func (g *rig) get(token, path string, headers ...string) *httptest.ResponseRecorder {
	return g.do(http.MethodGet, token, path, headers...)
}

func (g *rig) do(method, token, path string, headers ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	r := httptest.NewRequestWithContext(g.t.Context(), method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.mux.ServeHTTP(w, r)
	return w
}

// items asks for a list and gives its items with the cursor of the next page.
func items[T any](g *rig, token, path string) ([]T, string) {
	g.t.Helper()
	w := g.get(token, path)
	require.Equal(g.t, http.StatusOK, w.Code, w.Body.String())
	var body struct {
		Items []T
		Next  *string
	}
	require.NoError(g.t, json.Unmarshal(w.Body.Bytes(), &body))
	require.NotNil(g.t, body.Items, "an empty list is [], not null")
	require.NotNil(g.t, body.Next)
	return body.Items, *body.Next
}

// everyPage reads a list to its end, and calls between after each page.
func everyPage[T any](g *rig, token, path string, between func()) (all []T, pages int) {
	g.t.Helper()
	for next := ""; ; {
		url := path
		if next != "" {
			url += "&page=" + next
		}
		part, more := items[T](g, token, url)
		all, next = append(all, part...), more
		if pages++; next == "" {
			return all, pages
		}
		require.Less(g.t, pages, 1000, "the list never ends")
		if between != nil {
			between()
		}
	}
}

// problemIn is the error of an answer.
func problemIn(t *testing.T, w *httptest.ResponseRecorder) (p struct{ Message, Field, Value, Remedy string }) {
	t.Helper()
	require.Equal(t, jsonType, w.Header().Get("Content-Type"))
	var body map[string]*struct{ Message, Field, Value, Remedy string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	require.NotNil(t, body["error"], w.Body.String())
	require.NotEmpty(t, body["error"].Message)
	require.NotEmpty(t, body["error"].Remedy)
	return *body["error"]
}

// drive gives fixes of a device, one each interval up to the last.
func drive(device, fleet string, last time.Time, n int, interval time.Duration) []cassandra.Telemetry {
	fixes := make([]cassandra.Telemetry, n)
	for i := range fixes {
		fixes[i] = cassandra.Telemetry{DeviceID: device, FleetID: fleet, Ts: last.Add(-time.Duration(i) * interval), Lat: 52.5 + float64(i)*1e-5, Lon: 13.4, Zone: "unknown"}
	}
	return fixes
}

func named(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%03d", prefix, i)
	}
	return names
}

func ptr[T any](v T) *T { return &v }
