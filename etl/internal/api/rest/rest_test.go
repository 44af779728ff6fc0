package rest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
)

func newTestRouter(routes ...Route) *Router {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return NewRouter(Options{Routes: routes, Tokens: auth.OpenAccess("yard"), Logger: logger, Registerer: prometheus.NewRegistry(), Now: time.Now})
}

func get(t *testing.T, router http.Handler, target string) (*httptest.ResponseRecorder, Details) {
	w := httptest.NewRecorder()
	router.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	var d Details
	if w.Code >= http.StatusBadRequest {
		require.Equal(t, ProblemType, w.Header().Get("Content-Type"))
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	}
	return w, d
}

func TestProblemForClient(t *testing.T) {
	cause := errors.New("10.1.2.3 refused")
	p := &Problem{Kind: StoreUnavailable, Detail: "the store is unavailable", Field: "device", Value: strings.Repeat("ü", 100) + "\xff", Remedy: "retry", RetryAfter: 1500 * time.Millisecond, Cause: cause}
	router := newTestRouter(Route{Name: "x", Method: http.MethodGet, Path: "/x", Handle: func(*Response, *Request) error { return p }})
	w, d := get(t, router, "/x")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "2", w.Header().Get("Retry-After"), "rounded up")
	require.Equal(t, "urn:fleet-tracing:problem:store_unavailable", d.Type)
	require.Equal(t, "Store unavailable", d.Title)
	require.LessOrEqual(t, len(d.Value), maxShownValue+len("…"))
	require.NotContains(t, w.Body.String(), "10.1.2.3", "the cause is for the log")
	require.ErrorIs(t, p, cause)
	require.ErrorContains(t, p, "10.1.2.3")
}

func TestKindsHaveUniqueCodes(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds {
		require.False(t, seen[k.Code], k.Code)
		seen[k.Code] = true
		require.NotEmpty(t, k.Title)
		require.GreaterOrEqual(t, k.Status, http.StatusBadRequest)
	}
}

func TestTemporaryProblemsSpreadRetries(t *testing.T) {
	delays := map[time.Duration]bool{}
	for range 100 {
		p := Temporary(SpoolFull, "full", "retry", 15*time.Second, nil)
		require.GreaterOrEqual(t, p.RetryAfter, 15*time.Second)
		require.Less(t, p.RetryAfter, 30*time.Second)
		delays[p.RetryAfter] = true
	}
	require.Greater(t, len(delays), 50)
}

func TestErrorsOfHandlers(t *testing.T) {
	router := newTestRouter(
		Route{Name: "error", Method: http.MethodGet, Path: "/error", Handle: func(*Response, *Request) error { return errors.New("disk") }},
		Route{Name: "panic", Method: http.MethodGet, Path: "/panic", Handle: func(*Response, *Request) error { panic("bug") }},
		Route{Name: "half", Method: http.MethodGet, Path: "/half", Handle: func(w *Response, _ *Request) error {
			_, _ = io.WriteString(w, "half")
			return errors.New("store failed")
		}},
		Route{Name: "gone", Method: http.MethodGet, Path: "/gone", Handle: func(_ *Response, r *Request) error { return r.Context().Err() }},
	)
	for _, path := range []string{"/error", "/panic"} {
		w, d := get(t, router, path)
		require.Equal(t, http.StatusInternalServerError, w.Code)
		require.NotContains(t, d.Detail, "disk")
	}
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { get(t, router, "/half") }, "half a response aborts the connection")
	require.Equal(t, 1.0, testutil.ToFloat64(router.metrics.requests.WithLabelValues("half", "500")))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	router.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/gone", nil))
	require.Equal(t, 1.0, testutil.ToFloat64(router.metrics.requests.WithLabelValues("gone", "499")))
}

func TestTrailingSlashes(t *testing.T) {
	router := newTestRouter(
		Route{Name: "root", Method: http.MethodGet, Path: "/{$}", Handle: func(w *Response, _ *Request) error { w.WriteJSON(200, JSONType, "root"); return nil }},
		Route{Name: "item", Method: http.MethodGet, Path: "/v1/items/{item}", Handle: func(w *Response, r *Request) error { w.WriteJSON(200, JSONType, r.PathValue("item")); return nil }},
	)
	for target, want := range map[string]string{
		"/": "root", "//?q=1": "root", "/v1/items/a": "a", "/v1/items/a/": "a", "/v1/items/a//?q=/": "a", "/v1/items/a%2Fb/": "a/b", "/v1/items/a%2F": "a/",
	} {
		w, _ := get(t, router, target)
		require.Equal(t, 200, w.Code, target)
		require.Equal(t, `"`+want+`"`, strings.TrimSpace(w.Body.String()), target)
	}
	w, d := get(t, router, "/v1/other/")
	require.Equal(t, 404, w.Code)
	require.Equal(t, "path", d.Field)
}

func TestRequestIDsAreUniqueAndSorted(t *testing.T) {
	router := newTestRouter()
	last := ""
	for range 1000 {
		w, _ := get(t, router, "/")
		id := w.Header().Get(requestIDHeader)
		require.Greater(t, id, last)
		last = id
	}
}
