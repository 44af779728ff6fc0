package query

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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
	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/cache"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

// leakTimeout is how long a goroutine may outlive its test. After a session is closed, the driver may still wait for schema
// agreement for up to a minute.
const leakTimeout = 90 * time.Second

func TestMain(m *testing.M) {
	status := m.Run()
	deadline := time.Now().Add(leakTimeout)
	err := goleak.Find()
	for status == 0 && err != nil && time.Now().Before(deadline) {
		err = goleak.Find() // it retries for a while itself
	}
	if err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, "leaked goroutines:", err)
		status = 1
	}
	os.Exit(status)
}

// fakeStore is a store in memory with the limits of the real one.
type fakeStore struct {
	mu        sync.Mutex
	fleets    []string
	devices   []cassandra.Device
	positions []cassandra.Telemetry // any order
	alerts    []cassandra.Alert
	hours     []cassandra.AnalyticsRow
	resolved  []resolvedAlert
	open      []cassandra.Alert
	deleted   []deletedAlert

	err   error
	gate  chan struct{} // reads wait for it to be closed, or for the end of their context
	calls int
	fail  int // from this call on; 0: never
	most  int // rows of the largest result

	sorted   map[string][]cassandra.Telemetry
	sortedOf int
}

// resolvedAlert is the key of an alert that was resolved by hand.
type resolvedAlert struct {
	cassandra.Alert
	writeTimeUs int64
}

// alertKey is an alert that has only the key of its row.
func alertKey(fleet, severity string, openedMs int64, device, alertType string) cassandra.Alert {
	return cassandra.Alert{FleetID: fleet, Severity: severity, OpenedMs: openedMs, DeviceID: device, Type: alertType}
}

// deletedAlert is an alert that was removed from the open alerts.
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
	devices := slices.DeleteFunc(slices.Clone(f.devices), func(d cassandra.Device) bool { return d.FleetID != fleetID })
	from := 0
	if page != "" {
		if from, err = strconv.Atoi(page); err != nil {
			return p, &cassandra.Error{Op: "read devices", Reason: cassandra.ReasonInvalid, Err: err}
		}
	}
	from = min(from, len(devices))
	to := min(from+size, len(devices))
	for _, d := range devices[from:to] {
		if d.Status != cassandra.StatusMoved {
			p.Rows = append(p.Rows, d)
		}
	}
	if to < len(devices) {
		p.Next = strconv.Itoa(to)
	}
	return p, nil
}

func (f *fakeStore) LatestPage(ctx context.Context, fleetID, after string, limit int) (p cassandra.Page[cassandra.Telemetry], err error) {
	if err := f.enter(ctx); err != nil {
		return p, err
	}
	var rows []cassandra.Telemetry
	for _, t := range f.positions {
		if t.FleetID == fleetID && t.DeviceID > after {
			rows = append(rows, t)
		}
	}
	slices.SortFunc(rows, func(a, b cassandra.Telemetry) int {
		return cmp.Or(strings.Compare(a.DeviceID, b.DeviceID), b.Ts.Compare(a.Ts))
	})
	p.Rows = slices.CompactFunc(rows, func(a, b cassandra.Telemetry) bool { return a.DeviceID == b.DeviceID })
	if len(p.Rows) > limit {
		p.Rows = p.Rows[:limit]
		p.Next = p.Rows[limit-1].DeviceID
	}
	return p, nil
}

// track is the positions of a device, newest first; a new position sorts them again.
func (f *fakeStore) track(device string) []cassandra.Telemetry {
	if f.sorted == nil || f.sortedOf != len(f.positions) {
		f.sorted, f.sortedOf = map[string][]cassandra.Telemetry{}, len(f.positions)
		for _, t := range f.positions {
			f.sorted[t.DeviceID] = append(f.sorted[t.DeviceID], t)
		}
		for _, positions := range f.sorted {
			slices.SortFunc(positions, func(a, b cassandra.Telemetry) int { return b.Ts.Compare(a.Ts) })
		}
	}
	return f.sorted[device]
}

func (f *fakeStore) FleetsOf(ctx context.Context, deviceID string, fleets []string) (found []string, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.track(deviceID) {
		if slices.Contains(fleets, t.FleetID) && !slices.Contains(found, t.FleetID) {
			found = append(found, t.FleetID)
		}
	}
	return found, nil
}

func (f *fakeStore) History(ctx context.Context, q cassandra.HistoryQuery) (rows []cassandra.Telemetry, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	positions := f.track(q.DeviceID)
	newest, _ := slices.BinarySearchFunc(positions, q.To, func(t cassandra.Telemetry, to time.Time) int { return to.Compare(t.Ts) })
	for _, t := range positions[newest:] {
		if t.Ts.Before(q.From) || q.Limit > 0 && len(rows) == q.Limit {
			break
		}
		if q.FleetID == "" || t.FleetID == q.FleetID {
			rows = append(rows, t)
		}
	}
	f.most = max(f.most, len(rows))
	return rows, nil
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
	// Alerts with the same timestamp and device are in any order.
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
	f.resolved = append(f.resolved, resolvedAlert{alertKey(r.FleetID, r.Severity, r.OpenedMs, r.DeviceID, r.Type), writeTimeUs})
	for i := range f.alerts {
		if a := &f.alerts[i]; alertID(*a) == alertID(*r) {
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

func (f *fakeStore) Analytics(ctx context.Context, fleetID string, first, last cassandra.Day) (hours []cassandra.AnalyticsRow, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	for _, h := range f.hours {
		if h.FleetID == fleetID && h.Day >= first && h.Day <= last {
			hours = append(hours, h)
		}
	}
	return hours, nil
}

// hourAt returns statistics of fleet-a without values.
func hourAt(at time.Time) cassandra.AnalyticsRow {
	return cassandra.AnalyticsRow{FleetID: "fleet-a", Day: cassandra.DayOf(at.UnixMilli()), Hour: int32(at.Hour())}
}

// noon is the time of all tests.
var noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)

// testTokens are the lines of the tokens that tests use, by token.
var testTokens = map[string]string{
	"all": "* %x read,write", "a": "fleet-a %x read", "a-full": "fleet-a %x read,write", "b": "fleet-b %x read,write", "writer": "fleet-a %x write",
}

func fleetOf(token string) string { fleet, _, _ := strings.Cut(testTokens[token], " "); return fleet }

// fixture is an API with a fake store.
type fixture struct {
	t      *testing.T
	store  *fakeStore
	api    *API
	router *rest.Router
	reg    *prometheus.Registry
	now    time.Time
	absent bool // the store has not been reached
}

func newFixture(t *testing.T, store *fakeStore, change ...func(*Options)) *fixture {
	g := &fixture{t: t, store: store, reg: prometheus.NewRegistry(), now: noon}
	o := Options{
		Store: func() (Store, bool) { return store, !g.absent },
		Now:   func() time.Time { return g.now }, Logger: silent(), Registry: g.reg,
	}
	for _, c := range change {
		c(&o)
	}
	g.api = New(o)
	t.Cleanup(g.api.Close)
	var lines []string
	for token, line := range testTokens {
		lines = append(lines, fmt.Sprintf(line, sha256.Sum256([]byte(token))))
	}
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600))
	tokens, err := auth.Load(path)
	require.NoError(t, err)
	g.router = rest.NewRouter(rest.Options{Routes: g.api.Routes(), Tokens: tokens, Logger: silent(), Registerer: g.reg, Now: o.Now})
	return g
}

// requests is how many requests of a route were answered with a status.
func (g *fixture) requests(route, code string) float64 {
	return metricValue(g.t, g.reg, "fleet_etl_api_requests_total", map[string]string{"route": route, "code": code})
}

// metricValue is the value of a counter or gauge.
func metricValue(t *testing.T, reg *prometheus.Registry, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			own := map[string]string{}
			for _, l := range m.GetLabel() {
				own[l.GetName()] = l.GetValue()
			}
			if f.GetName() == name && maps.Equal(own, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func silent() logrus.FieldLogger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

func withMemory(t *testing.T) func(*Options) {
	memory := cache.NewMemory(1 << 20)
	t.Cleanup(memory.Close)
	return func(o *Options) { o.Cache = memory }
}

// get requests a path with a token, and headers in pairs.
func (g *fixture) get(token, path string, headers ...string) *httptest.ResponseRecorder {
	return g.do(http.MethodGet, token, path, headers...)
}

func (g *fixture) do(method, token, path string, headers ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	r := httptest.NewRequestWithContext(g.t.Context(), method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.router.ServeHTTP(w, r)
	return w
}

// items reads one page, and returns its items and the cursor of the next page.
func items[T any](g *fixture, token, path string) ([]T, string) {
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
func everyPage[T any](g *fixture, token, path string, between func()) (all []T, pages int) {
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

// problemIn is the problem in a response.
func problemIn(t *testing.T, w *httptest.ResponseRecorder) (p rest.Details) {
	t.Helper()
	require.Equal(t, rest.ProblemType, w.Header().Get("Content-Type"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p), w.Body.String())
	require.Equal(t, w.Code, p.Status)
	require.True(t, strings.HasPrefix(p.Type, rest.TypePrefix), p.Type)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	require.NotEmpty(t, p.Remedy)
	return p
}

// drive returns positions of a device, one per interval up to the last.
func drive(device, fleet string, last time.Time, n int, interval time.Duration) []cassandra.Telemetry {
	positions := make([]cassandra.Telemetry, n)
	for i := range positions {
		positions[i] = cassandra.Telemetry{DeviceID: device, FleetID: fleet, Ts: last.Add(-time.Duration(i) * interval), Lat: 52.5 + float64(i)*1e-5, Lon: 13.4, Zone: "unknown"}
	}
	return positions
}

func named(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%03d", prefix, i)
	}
	return names
}

func ptr[T any](v T) *T { return &v }
