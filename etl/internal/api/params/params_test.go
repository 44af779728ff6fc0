package params

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

var (
	noon = time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)
	spec = Spec{
		Route: "track", Span: &Span{Default: 24 * time.Hour, Max: 30 * 24 * time.Hour}, Severity: true,
		Formats: []Format{JSON, CSV}, Rows: 100, MaxRows: 1000,
	}
)

func parse(query, id string, spec Spec) (*Query, error) {
	return Parse(httptest.NewRequest(http.MethodGet, "/v1/list?"+query, nil), id, spec, noon)
}

func TestDefaults(t *testing.T) {
	q, err := parse("", "truck-1", spec)
	require.NoError(t, err)
	require.Equal(t, noon.UnixMilli(), q.To)
	require.Equal(t, noon.Add(-24*time.Hour).UnixMilli(), q.From)
	require.True(t, q.Sliding)
	require.True(t, q.Whole)
	require.Equal(t, 100, q.Limit)
	require.Equal(t, JSON, q.Format)
}

func TestRange(t *testing.T) {
	for query, want := range map[string]struct {
		from, to time.Time
		sliding  bool
	}{
		"from=-2h":                                {noon.Add(-2 * time.Hour), noon, true},
		"from=-2d&to=-1d":                         {noon.Add(-48 * time.Hour), noon.Add(-24 * time.Hour), true},
		"from=2026-11-01T00:00:00Z&to=now":        {noon.Add(-4*24*time.Hour - 12*time.Hour), noon, true},
		"from=1793872800&to=1793876400000":        {noon.Add(-2 * time.Hour), noon.Add(-time.Hour), false},
		"from=2026-11-05T11:00:00+01:00&to=%2B0h": {noon.Add(-2 * time.Hour), noon, true}, // the plus arrives as a space
	} {
		q, err := parse(query, "truck-1", spec)
		require.NoError(t, err, query)
		require.Equal(t, []int64{want.from.UnixMilli(), want.to.UnixMilli()}, []int64{q.From, q.To}, query)
		require.Equal(t, want.sliding, q.Sliding, query)
	}
}

func TestInvalidParametersNameTheField(t *testing.T) {
	for query, field := range map[string]string{
		"form=-7d": "form", "limit=0": "limit", "limit=1001": "limit", "limit=1&limit=2": "limit", "format=gpx": "format", "severity=URGENT": "severity",
		"from=yesterday": "from", "from=-31d": "from", "from=%2B1h": "from", "from=-1h&to=-2h": "to", "page=2": "page", "limit=%zz": "query",
	} {
		_, err := parse(query, "truck-1", spec)
		problem := (*rest.Problem)(nil)
		require.True(t, errors.As(err, &problem), query)
		require.Equal(t, field, problem.Field, query)
		require.NotEmpty(t, problem.Remedy, query)
	}
}

func TestSeverities(t *testing.T) {
	q, err := parse("severity=low,HIGH&severity=Low", "fleet-a", spec)
	require.NoError(t, err)
	require.Equal(t, []string{"HIGH", "LOW"}, q.Severities)
}

func TestNextPageKeepsRange(t *testing.T) {
	first, err := parse("from=-2h", "truck-1", spec)
	require.NoError(t, err)
	require.Empty(t, first.Next(""))
	page := first.Next("position")
	next, err := Parse(httptest.NewRequest(http.MethodGet, "/v1/list?from=-2h&page="+page, nil), "truck-1", spec, noon.Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, "position", next.Position)
	require.Equal(t, []int64{first.From, first.To}, []int64{next.From, next.To})
	require.False(t, next.Sliding)

	for name, other := range map[string]struct{ query, id, route string }{
		"another range": {"from=-3h", "truck-1", "track"}, "another device": {"from=-2h", "truck-2", "track"}, "another route": {"from=-2h", "truck-1", "alerts"},
	} {
		s := spec
		s.Route = other.route
		_, err := parse(other.query+"&page="+page, other.id, s)
		require.ErrorContains(t, err, "another list", name)
	}
}

func TestLinkHasNoToken(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/v1/list?token=secret&limit=1", nil)
	require.Equal(t, "/v1/list?limit=1&page=abc", Link(r, "abc"))
}
