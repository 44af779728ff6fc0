package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// described checks requests and responses against the document that the server publishes.
type described struct {
	*fixture
	document *openapi3.T
	seen     map[string]bool
}

// try sends a request and validates the response. It validates a request in JSON too if it succeeds.
func (d *described) try(status int, method, path, token, body string, headers ...string) {
	d.t.Helper()
	request, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	require.NoError(d.t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := d.client.Do(request)
	require.NoError(d.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(d.t, err)
	require.Equal(d.t, status, response.StatusCode, "%s %s: %s", method, path, text)
	d.validate(request, body, response, text)
}

func (d *described) validate(request *http.Request, body string, response *http.Response, text []byte) {
	d.t.Helper()
	router, err := legacy.NewRouter(d.document)
	require.NoError(d.t, err)
	route, parameters, err := router.FindRoute(request)
	require.NoError(d.t, err, "%s %s", request.Method, request.URL)
	input := &openapi3filter.RequestValidationInput{
		Request: request, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if response.StatusCode == http.StatusOK && request.Header.Get("Content-Type") == "application/json" {
		request.Body = io.NopCloser(strings.NewReader(body))
		require.NoError(d.t, openapi3filter.ValidateRequest(context.Background(), input))
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: response.StatusCode, Header: response.Header,
		Body: io.NopCloser(bytes.NewReader(text)), Options: input.Options,
	})
	require.NoError(d.t, err, "%s %s: %d %s", request.Method, request.URL, response.StatusCode, text)
	d.seen[fmt.Sprint(request.Method, " ", route.Path, " ", response.StatusCode)] = true
}

// slow sends half a request and validates the response.
func (d *described) slow(path string) {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.Listener.Addr().String())
	require.NoError(d.t, err)
	defer conn.Close()
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", path, d.token)
	_, err = io.WriteString(conn, head)
	require.NoError(d.t, err)
	text, err := io.ReadAll(conn)
	require.NoError(d.t, err)
	header, body, _ := strings.Cut(string(text), "\r\n\r\n")
	require.Contains(d.t, header, "HTTP/1.1 408 ")
	request, err := http.NewRequest(http.MethodPost, d.url+path, nil)
	require.NoError(d.t, err)
	response := &http.Response{StatusCode: http.StatusRequestTimeout, Header: http.Header{"Content-Type": {rest.ProblemType}}}
	d.validate(request, "", response, []byte(body))
}

// The server gives every response in the document, and every response of the server is in the document.
func TestOpenAPI(t *testing.T) {
	hasty := start(t, func(o *settings) { o.server.Limits.ReadTimeout = 100 * time.Millisecond })
	r := start(t, func(o *settings) {
		o.ingest.Limits.DeviceRate, o.ingest.Limits.DeviceBurst, o.ingest.Limits.MaxBody = 0.01, 5, 64<<10
	})
	text := r.do("GET", "/v1/openapi.json", "", nil).body
	document, err := openapi3.NewLoader().LoadFromData([]byte(text))
	require.NoError(t, err)
	require.NoError(t, document.Validate(t.Context()))
	document.Servers = nil
	d := &described{fixture: r, document: document, seen: map[string]bool{}}
	now := time.Now().Unix()
	long := strings.Repeat(" ", 64<<10+1)
	asJSON := []string{"Content-Type", "application/json"}

	d.try(200, "GET", "/v1/openapi.json", "", "")

	bad := strings.Replace(line("a", 0), "31.5", "91", 1)
	d.try(200, "POST", "/v1/telemetry?verbose=1", r.token, "["+line("a", 0)+","+line("a", 0)+"]", asJSON...)
	d.try(200, "POST", "/v1/telemetry", r.token, "[]", asJSON...)
	d.try(422, "POST", "/v1/telemetry", r.token, "["+bad+",1]", asJSON...)
	d.try(400, "POST", "/v1/telemetry", r.token, "[", asJSON...)
	d.try(401, "POST", "/v1/telemetry", "", line("a", 0), asJSON...)
	d.try(403, "POST", "/v1/telemetry", r.reader, line("a", 0), asJSON...)
	d.try(413, "POST", "/v1/telemetry", r.token, long, asJSON...)
	d.try(415, "POST", "/v1/telemetry", r.token, "a,b", "Content-Type", "text/csv")

	position := fmt.Sprintf("lat=31.5&lon=120.2&timestamp=%d&speed=33.5&bearing=270&batt=87&accuracy=5", now)
	traccar := fmt.Sprintf(`{"device_id":"t","location":{"timestamp":%q,"coords":{"latitude":1,"longitude":2,"speed":-1,"heading":-1,"accuracy":4.2},"battery":{"level":0.5,"is_charging":false}}}`, time.Now().UTC().Format(time.RFC3339))
	for i, path := range []string{"/", "/v1/osmand", "/v1/osmand/" + r.token} {
		device := fmt.Sprint("phone-", i)
		token := func(token string) (string, string) { // adds a token in the way of the path
			if i == 2 {
				return "/v1/osmand/" + token, ""
			}
			return path, token
		}
		at := func(query string, presented string) (string, string) {
			p, bearer := token(presented)
			return p + query, bearer
		}
		for _, method := range []string{"GET", "POST"} {
			try := func(status int, query, presented, body string, headers ...string) {
				t.Helper()
				address, bearer := at(query, presented)
				d.try(status, method, address, bearer, body, headers...)
			}
			id := "?id=" + device + method + "&"
			try(200, id+position, r.token, "")
			try(200, id+"lat=0&lon=0", r.token, "")
			try(400, "", r.token, "")
			if i < 2 {
				try(401, id+position, "", "")
			} else {
				try(401, id+position, "guess", "")
			}
			try(403, id+position, r.reader, "")
			if method == "POST" {
				try(200, "", r.token, strings.Replace(traccar, `"t"`, `"`+device+`"`, 1), asJSON...)
				try(200, "", r.token, `[{"device_id":"x","location":[{"event":"heartbeat"}]}]`, asJSON...)
				try(413, "", r.token, long)
				try(415, id+position, r.token, "x", "Content-Encoding", "br")
			}
			for n := range 5 { // the burst
				try2 := fmt.Sprintf("%slat=1&lon=%d&timestamp=%d", id, n+1, now-int64(n)-10)
				address, bearer := at(try2, r.token)
				_ = r.do(method, address, bearer, nil)
			}
			try(429, id+position, r.token, "")
			r.spool.set(spool.ErrFull, nil)
			try(503, "?id=other-"+device+method+"&"+position, r.token, "")
			r.spool.set(nil, nil)
		}
	}

	own := fmt.Sprintf(`{"_type":"location","lat":1,"lon":2,"tst":%d,"vel":54,"batt":76,"acc":12}`, now)
	d.try(200, "POST", "/v1/owntracks?u=jane&d=phone", r.token, own, asJSON...)
	d.try(200, "POST", "/v1/owntracks", r.token, `[{"_type":"lwt"}]`, append(asJSON, "X-Limit-U", "jane")...)
	d.try(400, "POST", "/v1/owntracks", r.token, own, "Content-Encoding", "gzip")
	d.try(401, "POST", "/v1/owntracks", "", own)
	d.try(403, "POST", "/v1/owntracks", r.reader, own)
	d.try(413, "POST", "/v1/owntracks", r.token, long)
	d.try(415, "POST", "/v1/owntracks", r.token, own, "Content-Encoding", "br")
	for range 5 {
		_ = r.do("POST", "/v1/owntracks?u=jane&d=phone", r.token, strings.NewReader(own))
		_ = r.post(line("a", 0))
	}
	d.try(429, "POST", "/v1/owntracks?u=jane&d=phone", r.token, own)
	d.try(429, "POST", "/v1/telemetry", r.token, line("a", 0), asJSON...)
	r.spool.set(errors.New("disk"), nil)
	d.try(503, "POST", "/v1/owntracks?u=john", r.token, own)
	d.try(503, "POST", "/v1/telemetry", r.token, line("other", 0), asJSON...)

	d.fixture = hasty
	for _, path := range []string{"/v1/telemetry", "/", "/v1/osmand", "/v1/osmand/" + hasty.token, "/v1/owntracks"} {
		d.slow(path)
	}

	var missing, documented, served []string
	queries := map[string]bool{} // package query tests these
	for _, route := range r.Query.Routes() {
		queries[route.Method+" "+route.Path] = true
	}
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			documented = append(documented, method+" "+path)
			for status := range operation.Responses.Map() {
				if name := method + " " + path + " " + status; !queries[method+" "+path] && !d.seen[name] {
					missing = append(missing, name)
				}
			}
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing, "documented, but never seen")
	for _, route := range append(append(r.Ingest.Routes(), r.Query.Routes()...), rest.Route{Method: "GET", Path: "/v1/openapi.json"}) {
		served = append(served, route.Method+" "+strings.Replace(route.Path, "{$}", "", 1))
	}
	require.ElementsMatch(t, served, documented)

	var types []string
	for _, kind := range rest.Kinds {
		types = append(types, rest.TypePrefix+kind.Code)
	}
	enum := document.Components.Schemas["Problem"].Value.Properties["type"].Value.Enum
	require.ElementsMatch(t, types, enum)
	var reasons []any
	for _, reason := range telemetry.Reasons {
		reasons = append(reasons, string(reason))
	}
	require.ElementsMatch(t, reasons, document.Components.Schemas["Result"].Value.Properties["reason"].Value.Enum)
}
