package query

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

// description is the document of the whole API.
func description(t *testing.T) *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromFile("../openapi.yaml")
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return doc
}

func TestOpenAPI(t *testing.T) {
	openapi3filter.RegisterBodyDecoder(gpx.ContentType, openapi3filter.FileBodyDecoder)
	defer openapi3filter.UnregisterBodyDecoder(gpx.ContentType)
	doc := description(t)
	router, err := legacy.NewRouter(doc)
	require.NoError(t, err)
	store := twoFleets()
	store.positions[0].SpeedKmh, store.positions[0].HeadingDeg = ptr(50.5), ptr(90.0)
	store.positions[0].BatteryPct, store.positions[0].TempC = ptr(int32(80)), ptr(4.5)
	store.positions[0].AccuracyM = ptr(4.25)
	g := newFixture(t, store, withMemory(t))
	unavailable := newFixture(t, &fakeStore{err: &cassandra.Error{Op: "read", Reason: cassandra.ReasonNoHosts, Err: io.EOF}})
	busy := newFixture(t, twoFleets())
	busy.api.memory = rest.NewMemory(0, "responses", nil)
	broken := newFixture(t, &fakeStore{err: errors.New("the schema is another")})
	etag := g.get("all", "/v1/fleets").Header().Get("ETag")

	answered := map[string]bool{}
	check := func(g *fixture, method, token, path string, status int, headers ...string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, nil)
		require.NoError(t, err)
		route, params, err := router.FindRoute(request)
		require.NoError(t, err)
		input := &openapi3filter.RequestValidationInput{
			Request: request, PathParams: params, Route: route,
			Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
		}
		if status < 400 {
			require.NoError(t, openapi3filter.ValidateRequest(t.Context(), input), path)
		}
		w := g.do(method, token, path, headers...)
		require.Equal(t, status, w.Code, "%s: %s", path, w.Body.String())
		require.NoError(t, openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: input, Status: w.Code, Header: w.Header(), Body: io.NopCloser(w.Body),
			Options: &openapi3filter.Options{IncludeResponseStatus: true},
		}), "%s: %s", path, w.Body.String())
		answered[fmt.Sprint(method, " ", route.Path, " ", status)] = true
	}
	for _, path := range []string{
		"/v1/fleets", "/v1/fleets/fleet-a/devices", "/v1/fleets/fleet-a/latest", "/v1/devices/truck-1/track", "/v1/fleets/fleet-a/alerts", "/v1/fleets/fleet-a/analytics",
	} {
		check(g, "GET", "all", path, 200)
		check(g, "GET", "all", path+"?limit=1", 200)
		check(g, "GET", "all", path+"?format=csv", 200)
		check(g, "GET", "all", path+"?limit=none", 400)
		check(g, "GET", "", path, 401)
		check(g, "GET", "writer", path, 403)
		check(busy, "GET", "all", path, 429)
		check(unavailable, "GET", "all", path, 503)
		check(broken, "GET", "all", path, 500)
		etag := g.get("all", path+"?limit=1").Header().Get("ETag")
		check(g, "GET", "all", path+"?limit=1", 304, "If-None-Match", etag)
	}
	require.NotEmpty(t, etag)
	check(g, "GET", "a", "/v1/devices/truck-1/track?from=-24h&to=now&format=gpx", 200)
	check(g, "GET", "a", "/v1/fleets/fleet-a/alerts?from=2026-11-01T00:00:00Z&severity=HIGH,LOW", 200)
	resolve := "/v1/alerts/" + alertA + "/resolve"
	check(g, "POST", "all", resolve, 200)
	check(g, "POST", "all", "/v1/alerts/42/resolve", 400)
	check(g, "POST", "", resolve, 401)
	check(g, "POST", "a", resolve, 403)
	check(g, "POST", "all", "/v1/alerts/"+alertID(alertKey("fleet-a", "LOW", 1, "x", "y"))+"/resolve", 404)
	check(unavailable, "POST", "all", resolve, 503)
	check(broken, "POST", "all", resolve, 500)

	for _, route := range g.api.Routes() {
		operation := doc.Paths.Value(route.Path).GetOperation(route.Method)
		for status := range operation.Responses.Map() {
			require.True(t, answered[strings.Join([]string{route.Method, route.Path, status}, " ")], "%s %s %s is documented and was never seen", route.Method, route.Path, status)
		}
	}
}
