package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestBodyFormats(t *testing.T) {
	r := start(t)
	one, two := line("a", 1), line("b", 2)
	pretty := strings.NewReplacer(",", ",\r\n  ", "{", "{\n  ", "}", "\n}").Replace(one)
	for name, c := range map[string]struct {
		body    string
		headers []string
		want    int
	}{
		"an object":                 {body: one, want: 1},
		"an object over lines":      {body: pretty, want: 1},
		"an array":                  {body: " [" + one + ",\n" + two + "] \n", want: 2},
		"an empty array":            {body: "[]", want: 0},
		"lines":                     {body: one + "\n" + two + "\n", want: 2},
		"lines, empty ones between": {body: "\n" + one + "\r\n\r\n" + two, want: 2},
		"lines by content type":     {body: one + "\n" + two, headers: []string{"Content-Type", "application/x-ndjson; charset=utf-8"}, want: 2},
		"a byte order mark":         {body: "\ufeff" + one, want: 1},
		"content type of curl":      {body: one, headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, want: 1},
		"gzip":                      {body: gzipped(one + "\n" + two).String(), headers: []string{"Content-Encoding", "gzip"}, want: 2},
		"gzip of two parts":         {body: gzipped(one+"\n").String() + gzipped(two).String(), headers: []string{"Content-Encoding", "GZIP"}, want: 2},
		"a vendor content type":     {body: one, headers: []string{"Content-Type", "application/vnd.acme+json"}, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.post(c.body, c.headers...)
			require.Equal(t, 200, got.status, got.body)
			require.Equal(t, c.want, got.Accepted+got.Duplicates, got.body)
			require.Zero(t, got.Rejected)
		})
	}
}

// A record of another fleet's device is answered at once where the owner is known.
func TestRecordOfAnotherFleetsDeviceIsRejectedAtOnce(t *testing.T) {
	r := start(t, func(s *settings) {
		s.ingest.CheckOwner = func(sender string, r *telemetry.Record) *telemetry.Rejection {
			if sender == "wuxi" && r.DeviceID == "theirs" {
				return telemetry.Reject(telemetry.WrongFleet, telemetry.FieldDeviceID, r.DeviceID, "ask an administrator")
			}
			return nil
		}
	})
	got := r.post(line("mine", 0) + "\n" + line("theirs", 0))
	require.Equal(t, 200, got.status)
	require.Equal(t, 1, got.Accepted)
	require.Equal(t, []result{{1, "rejected", telemetry.WrongFleet, "device_id", "theirs", "ask an administrator"}}, got.Results)
	items, rejected := r.arrived(2)
	require.Equal(t, "wuxi", items[0].Sender)
	require.Equal(t, "wuxi", rejected[0].Sender)
	require.Equal(t, "theirs", rejected[0].Fields["device_id"])
	again := r.post(line("theirs", 0) + "\n" + line("mine", 1))
	require.Zero(t, again.Duplicates, "it is not remembered as a record of the device")
}

func TestEachRecordHasResultAndReachesPipeline(t *testing.T) {
	r := start(t)
	bad := strings.Replace(line("truck-2", 0), "31.5", "131.5", 1)
	other := `{"fleet_id":"suzhou",` + line("truck-3", 0)[1:]
	body := strings.Join([]string{line("truck-1", 0), bad, "{torn", other, line("truck-1", 0), `{"fleet_id":"wuxi",` + line("truck-4", 0)[1:]}, "\n")
	got := r.post(body)
	require.Equal(t, 200, got.status)
	require.Equal(t, summary{Accepted: 2, Duplicates: 1, Rejected: 3, Results: []result{
		{1, "rejected", telemetry.LatRange, "lat", "131.5", "give degrees from -90 to 90"},
		{2, "rejected", telemetry.Malformed, "", "", "send valid JSON: invalid character 't' looking for beginning of object key string"},
		{3, "rejected", telemetry.ForbiddenFleet, "fleet_id", "suzhou", "this token writes to fleet wuxi only: leave fleet_id out, or use a token of that fleet"},
		{Index: 4, Status: "duplicate"},
	}}, func() summary { a := got.summary; a.Results[1].Value = ""; return a }())

	items, rejected := r.arrived(6)
	require.Len(t, items, 3, "the pipeline decides about duplicates")
	require.Equal(t, "truck-1", items[0].DeviceID)
	require.Equal(t, "wuxi", items[0].FleetID)
	require.Equal(t, telemetry.Some(36.5), items[0].SpeedKmh)
	require.Equal(t, int64(5), items[2].Position)
	require.Equal(t, []int64{1, 2, 3}, []int64{rejected[0].Position, rejected[1].Position, rejected[2].Position})
	require.Equal(t, "{torn", rejected[1].Raw)
	require.Equal(t, other, rejected[2].Raw)
	require.Equal(t, []string{"wuxi", "wuxi"}, []string{items[0].Sender, rejected[2].Sender}, "the fleet of the token")
	require.Equal(t, got.header.Get("X-Request-Id"), r.batches[0].Origin)
	require.WithinDuration(t, time.Now(), r.batches[0].Accepted, 5*time.Second)
	require.Equal(t, "truck-2", rejected[0].Fields["device_id"], "it can be reprocessed")
	require.Equal(t, "wuxi", rejected[0].Fields["fleet_id"], "the fleet of the token")
	require.Equal(t, "131.5", rejected[0].Fields["lat"])

	verbose := r.do("POST", "/v1/telemetry?verbose=1", r.token, strings.NewReader(line("truck-5", 0)))
	require.Equal(t, []result{{Index: 0, Status: "accepted"}}, verbose.Results)
	require.Equal(t, 3.0, r.metric("fleet_etl_api_records_total", "protocol", "telemetry", "status", "accepted"))
	require.Equal(t, 3.0, r.metric("fleet_etl_api_records_total", "protocol", "telemetry", "status", "rejected"))
	require.Equal(t, 2.0, r.metric("fleet_etl_api_requests_total", "route", "telemetry", "code", "200"))
}

func TestAllRejected(t *testing.T) {
	r := start(t)
	got := r.post("[" + strings.Replace(line("a", 0), "31.5", "91", 1) + ",17,null]")
	require.Equal(t, 422, got.status)
	require.Equal(t, 3, got.Rejected)
	_, rejected := r.arrived(3)
	require.Equal(t, "17", rejected[1].Raw)
	require.Equal(t, telemetry.Malformed, rejected[2].Reason)
	require.Equal(t, got.header.Get("X-Request-Id"), r.batches[0].Origin)
	appended, _ := r.spool.counts()
	require.Zero(t, appended, "nothing of it will be stored")
}

func TestRejectedRequestIsNotAnsweredBeforeItIsKept(t *testing.T) {
	r := start(t, func(o *settings) {
		o.ingest.Reject = func(context.Context, string, []pipeline.Rejected) error { return errors.New("no space left on device") }
	})
	for path, body := range map[string]string{"/v1/telemetry": "{}", "/?id=a&lat=0&lon=0": "", "/v1/owntracks": `{"_type":"location"}`} {
		got := r.do("POST", path, r.token, strings.NewReader(body))
		require.Equal(t, 503, got.status, path)
		require.Equal(t, "spool_failed", got.code)
		require.NotEmpty(t, got.header.Get("Retry-After"))
	}
	require.Equal(t, 200, r.post(line("a", 0)).status, "valid records do not need the dead-letter queue")
}

func TestTooLargeRecordIsKeptAsExcerpt(t *testing.T) {
	r := start(t)
	long := `{"device_id":"` + strings.Repeat("x", 65_000) + `"}`
	got := r.post(line("a", 0) + "\n" + long)
	require.Equal(t, 200, got.status)
	want := fmt.Sprintf("%d bytes, SHA-256 %x", len(long), sha256.Sum256([]byte(long)))
	require.Equal(t, []result{{1, "rejected", telemetry.TooLarge, "", want, "send at most 16 KiB per record"}}, got.Results)
	_, rejected := r.arrived(2)
	require.Equal(t, long[:telemetry.MaxExcerpt], rejected[0].Raw)
	require.Equal(t, want, rejected[0].Value)
}

func TestBytesOfTokenAreLimited(t *testing.T) {
	now := time.Now()
	r := start(t, func(o *settings) {
		o.ingest.Limits.TokenRate, o.ingest.Limits.TokenBurst, o.ingest.Limits.MaxBody = 10, 40, 40<<10
		o.server.Now = func() time.Time { return now }
		o.ingest.Now = o.server.Now
	})
	body := line("a", 0) + strings.Repeat(" ", 30<<10)
	require.Equal(t, 200, r.post(body).status)
	got := r.post(body)
	require.Equal(t, 429, got.status, "two records, and more bytes than forty")
	require.Contains(t, got.problem.Detail, "this token")
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Equal(t, 200, r.do("POST", "/v1/telemetry?fleet_id=suzhou", r.all, strings.NewReader(body)).status, "another token")
}

// More tokens do not give a fleet more, and a token of all fleets is not limited with any of them.
func TestTokensOfAFleetShareItsRate(t *testing.T) {
	now := time.Now()
	r := start(t, func(o *settings) {
		o.ingest.Limits.FleetRate, o.ingest.Limits.FleetBurst, o.ingest.Limits.MaxBody = 10, 40, 40<<10
		o.server.Now = func() time.Time { return now }
		o.ingest.Now = o.server.Now
	})
	send := func(token string, records, bytes int) reply {
		lines := make([]string, records)
		for i := range lines {
			lines[i] = line("a", i)
		}
		body := strings.Join(lines, "\n")
		return r.do("POST", "/v1/telemetry?fleet_id=wuxi", token, strings.NewReader(body+strings.Repeat(" ", max(0, bytes-len(body)))))
	}
	require.Equal(t, 200, send(r.token, 40, 0).status)
	got := send(r.second, 1, 0)
	require.Equal(t, 429, got.status)
	require.Contains(t, got.problem.Detail, "fleet wuxi")
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Equal(t, 200, send(r.all, 40, 0).status, "a trusted sender")
	require.Equal(t, 200, r.do("POST", "/v1/telemetry", r.other, strings.NewReader(line("a", 0))).status, "another fleet")
	now = now.Add(10 * time.Second)
	require.Equal(t, 200, send(r.token, 1, 30<<10).status)
	require.Equal(t, 429, send(r.second, 1, 30<<10).status, "few records, and many bytes")
	require.Equal(t, 200, send(r.second, 1, 0).status, "the rejected request took nothing")
	require.Equal(t, 2.0, r.metric("fleet_etl_api_rate_limited_requests_total", "limit", "fleet"))
	require.Equal(t, 0.0, r.metric("fleet_etl_api_rate_limited_requests_total", "limit", "token"))
}

func TestLateDataOfAFleetIsLimited(t *testing.T) {
	r := start(t, func(o *settings) { o.ingest.Limits.MaxLate = 48 * time.Hour })
	late := line("a", 3*24*3600)
	got := r.post(line("a", 24*3600) + "\n" + late)
	require.Equal(t, 200, got.status)
	require.Equal(t, 1, got.Accepted)
	require.Equal(t, []telemetry.Reason{telemetry.TooLate}, []telemetry.Reason{got.Results[0].Reason})
	require.Equal(t, telemetry.FieldTimestamp, got.Results[0].Field)
	require.Contains(t, got.Results[0].Remedy, "48h0m0s")
	require.Equal(t, 1, r.do("POST", "/v1/telemetry?fleet_id=wuxi", r.all, strings.NewReader(late)).Accepted, "a trusted sender writes as far back as history is kept")
	items, rejected := r.arrived(3)
	require.Len(t, items, 2)
	require.Equal(t, telemetry.TooLate, rejected[0].Reason)
	require.NotEmpty(t, rejected[0].Fields, "it can be reprocessed")
}

func TestOldRecordIsRejected(t *testing.T) {
	r := start(t)
	got := r.post(line("a", 31*24*3600))
	require.Equal(t, 422, got.status)
	require.Equal(t, telemetry.TooOld, got.Results[0].Reason)
}

func TestRequestIsStoredAsWholeOrNotAtAll(t *testing.T) {
	r := start(t, func(o *settings) { o.ingest.Limits.MaxRecords, o.ingest.Limits.MaxBody = 3, 4096 })
	one := line("a", 0)
	half := gzipped(strings.Repeat(one+"\n", 2)).String()
	spoiled := []byte(half)
	spoiled[len(spoiled)-5] ^= 1 // its checksum
	for name, c := range map[string]struct {
		body    string
		headers []string
		status  int
		code    string
		message string
	}{
		"empty":                        {"", nil, 400, "malformed_body", "the body is empty"},
		"no JSON":                      {"device_id,lat\nv1,31", nil, 400, "malformed_body", "is not JSON"},
		"gzip without header":          {half, nil, 400, "malformed_body", "Content-Encoding: gzip"},
		"an array that breaks":         {"[" + one + "," + one[:20], nil, 400, "malformed_body", "incomplete"},
		"an array with a typo":         {"[" + one + ",}]", nil, 400, "malformed_body", "broken"},
		"an array and more":            {"[" + one + "] true", nil, 400, "malformed_body", "something follows the array"},
		"an object that breaks":        {one[:40], nil, 400, "malformed_body", "the JSON is broken: unexpected end"},
		"an object over lines":         {"{\n\"device_id\": \"a\",\n\"lat\": }", nil, 400, "malformed_body", "broken"},
		"half a gzip":                  {half[:len(half)/2], []string{"Content-Encoding", "gzip"}, 400, "bad_gzip", "not complete gzip"},
		"gzip without its end":         {half[:len(half)-4], []string{"Content-Encoding", "gzip"}, 400, "bad_gzip", "not complete gzip"},
		"gzip that is damaged":         {string(spoiled), []string{"Content-Encoding", "gzip"}, 400, "bad_gzip", "checksum"},
		"JSON as gzip":                 {one, []string{"Content-Encoding", "gzip"}, 400, "bad_gzip", "header"},
		"an empty gzip":                {"", []string{"Content-Encoding", "gzip"}, 400, "bad_gzip", "EOF"},
		"an encoding":                  {one, []string{"Content-Encoding", "br"}, 415, "unsupported_encoding", "br use gzip"},
		"a type":                       {one, []string{"Content-Type", "text/csv"}, 415, "unsupported_type", "text/csv"},
		"too many in an array":         {"[" + strings.Repeat("1,", 3) + "1]", nil, 413, "too_large", "3 records"},
		"too many lines":               {strings.Repeat("{}\n", 4), nil, 413, "too_large", "3 records"},
		"too long":                     {strings.Repeat(" ", 4097), nil, 413, "too_large", "4096 bytes"},
		"too long after decompression": {gzipped(strings.Repeat(" ", 4097)).String(), []string{"Content-Encoding", "gzip"}, 413, "too_large", "after decompression"},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.post(c.body, c.headers...)
			require.Equal(t, c.status, got.status, got.body)
			require.Equal(t, c.code, got.code)
			require.Contains(t, fmt.Sprint(got.problem), c.message)
		})
	}
	appended, _ := r.spool.counts()
	require.Zero(t, appended)
	require.Equal(t, 200, r.post(line("a", 0)+strings.Repeat(" ", 4096-len(line("a", 0)))).status, "exactly the limit")
}

func TestTokensAndRoutes(t *testing.T) {
	r := start(t)
	for name, c := range map[string]struct {
		method, path, token string
		status              int
		header, value       string
	}{
		"no token":           {"POST", "/v1/telemetry", "", 401, "Www-Authenticate", `Bearer realm="fleet-tracing"`},
		"a wrong token":      {"POST", "/v1/telemetry", "guess", 401, "Www-Authenticate", `Bearer realm="fleet-tracing"`},
		"a reader":           {"POST", "/v1/telemetry", r.reader, 403, "", ""},
		"a wrong method":     {"GET", "/v1/telemetry", r.token, 405, "Allow", "POST"},
		"another one":        {"DELETE", "/v1/osmand", r.token, 405, "Allow", "GET, HEAD, POST"},
		"no such path":       {"POST", "/v1/nothing", r.token, 404, "", ""},
		"a token in a path":  {"GET", "/v1/osmand/guess?id=1", "", 401, "", ""},
		"a token in a query": {"GET", "/?id=1&token=guess", "", 401, "", ""},
		"a reader, queries":  {"GET", "/v1/fleets", r.token, 403, "", ""},
		"a login":            {"POST", "/v1/owntracks", "", 401, "Www-Authenticate", `Basic realm="fleet-tracing"`},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.do(c.method, c.path, c.token, strings.NewReader(line("a", 0)))
			require.Equal(t, c.status, got.status, got.body)
			require.NotEmpty(t, got.problem.Detail)
			require.Len(t, got.header.Get("X-Request-Id"), 36)
			if c.header != "" {
				require.Equal(t, c.value, got.header.Get(c.header))
			}
		})
	}
	appended, _ := r.spool.counts()
	require.Zero(t, appended)
	require.Equal(t, 1.0, r.metric("fleet_etl_api_requests_total", "route", "none", "code", "404"))
}

func TestTokenOfAllFleets(t *testing.T) {
	r := start(t)
	at := time.Now().Unix()
	send := func(path, body string) reply { return r.do("POST", path, r.all, strings.NewReader(body)) }
	require.Equal(t, 200, send("/v1/telemetry", `{"fleet_id":"suzhou",`+line("a", 0)[1:]).status)
	require.Equal(t, 200, send("/v1/telemetry?fleet_id=jiangyin", line("b", 0)).status)
	require.Equal(t, telemetry.MissingField, send("/v1/telemetry", line("c", 0)).Results[0].Reason)
	require.Equal(t, 1, send(fmt.Sprintf("/?id=d&lat=1&lon=2&timestamp=%d&fleet_id=yixing", at), "").Accepted)
	require.Equal(t, "[]\n", send("/v1/owntracks?fleet_id=binhu&u=e", fmt.Sprintf(`{"_type":"location","lat":1,"lon":2,"tst":%d}`, at)).body)
	items, _ := r.arrived(5)
	fleets := map[string]string{}
	for _, i := range items {
		fleets[i.DeviceID] = i.FleetID
	}
	require.Equal(t, map[string]string{"a": "suzhou", "b": "jiangyin", "d": "yixing", "e": "binhu"}, fleets)
}

func TestOpenAccess(t *testing.T) {
	r := start(t, func(o *settings) { o.server.Tokens = auth.OpenAccess("yard") })
	require.Equal(t, 200, r.do("POST", "/v1/telemetry", "", strings.NewReader(line("a", 0))).status)
	require.Equal(t, 401, r.do("POST", "/v1/telemetry", "guess", strings.NewReader(line("a", 0))).status)
	items, _ := r.arrived(1)
	require.Equal(t, "yard", items[0].FleetID)
}

func TestRateLimits(t *testing.T) {
	now := time.Now()
	clock := make(chan time.Time, 1)
	clock <- now
	r := start(t, func(o *settings) {
		o.ingest.Limits.TokenRate, o.ingest.Limits.TokenBurst, o.ingest.Limits.DeviceRate, o.ingest.Limits.DeviceBurst = 2, 10, 0.5, 3
		o.server.Now = func() time.Time { at := <-clock; clock <- at; return at }
		o.ingest.Now = o.server.Now
	})
	pass := func(d time.Duration) { <-clock; now = now.Add(d); clock <- now }
	send := func(device string, n int) reply {
		t.Helper()
		lines := make([]string, n)
		for i := range lines {
			lines[i] = line(device, i)
		}
		return r.post(strings.Join(lines, "\n"))
	}
	require.Equal(t, 200, send("a", 3).status)
	got := send("a", 1)
	require.Equal(t, 429, got.status)
	require.Equal(t, "2", got.header.Get("Retry-After"), "half a record per second")
	require.Contains(t, got.problem.Detail, "device wuxi/a")
	require.Equal(t, 200, send("b", 3).status, "another device")
	require.Equal(t, 200, send("c", 3).status)
	require.Equal(t, 429, send("d", 3).status, "the token has one left")
	require.Equal(t, 200, send("d", 1).status, "the rejected request took nothing")
	got = send("e", 1)
	require.Equal(t, 429, got.status)
	require.Contains(t, got.problem.Detail, "this token")
	pass(time.Minute)
	require.Equal(t, 200, send("a", 9).status, "a request larger than the burst takes all of it")
	require.Equal(t, 429, send("a", 1).status)
	require.Equal(t, 4.0, r.metric("fleet_etl_api_requests_total", "route", "telemetry", "code", "429"))
}

func TestTrailingSlash(t *testing.T) {
	r := start(t)
	at := time.Now().Unix()
	for i, path := range []string{
		"/v1/osmand/" + r.token + "/?", "/v1/osmand/?token=" + r.token + "&", "/v1/osmand//?token=" + r.token + "&", "//?token=" + r.token + "&", "/?token=" + r.token + "&",
	} {
		got := r.do("GET", fmt.Sprintf("%sid=phone-%d&lat=52.37&lon=9.73&timestamp=%d&speed=10", path, i, at), "", nil)
		require.Equal(t, 200, got.status, path)
		require.Equal(t, 1, got.Accepted, path)
	}
	require.Equal(t, 200, r.do("POST", "/v1/telemetry/", r.token, strings.NewReader(line("a", 0))).status)
	require.Equal(t, 200, r.do("POST", "/v1/owntracks/?u=jane", r.token, strings.NewReader(`{"_type":"lwt"}`)).status)
	require.Equal(t, 200, r.do("GET", "/v1/openapi.json/", "", nil).status)
	require.Equal(t, 404, r.do("GET", "/v1/nothing/", "", nil).status)
}
