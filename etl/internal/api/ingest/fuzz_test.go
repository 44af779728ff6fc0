package ingest

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// fuzzed is the receiving side of the API without its server, for any request.
type fuzzed struct {
	*rest.Router
	spool    *memorySpool
	rejected []protocol.Message // of a request that was rejected whole
	token    string
	now      time.Time
	check    func(*telemetry.Record, int64) *telemetry.Rejection
}

func newFuzzed(f *testing.F) *fuzzed {
	w := &fuzzed{spool: newMemorySpool(), now: time.UnixMilli(1_795_000_000_123), check: validate.NewBounds(nil).Check}
	var hash string
	w.token, hash = auth.NewToken()
	path := filepath.Join(f.TempDir(), "tokens")
	require.NoError(f, os.WriteFile(path, []byte("wuxi "+hash), 0o600))
	tokens, err := auth.Load(path)
	require.NoError(f, err)
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	limits, now, reg := DefaultLimits(), func() time.Time { return w.now }, prometheus.NewRegistry()
	limits.TokenRate, limits.DeviceRate = 0, 0
	limits.MaxRecords = 50
	g := New(Options{
		Spool: w.spool, Check: w.check, Seen: func(*telemetry.Record) telemetry.Seen { return telemetry.New },
		Reject:     w.reject,
		CheckOwner: func(string, *telemetry.Record) *telemetry.Rejection { return nil },
		Limits:     limits, Logger: logger, Registerer: reg, Now: now,
	})
	w.Router = rest.NewRouter(rest.Options{Routes: g.Routes(), Tokens: tokens, Logger: logger, Registerer: reg, Now: now})
	return w
}

func (w *fuzzed) reject(_ context.Context, _ string, rejected []pipeline.Rejected) error {
	for _, r := range rejected {
		m := protocol.Message{Index: int(r.Position), Rejection: r.Rejection, Raw: r.Raw}
		if text, err := json.Marshal(r.Fields); err == nil && r.Fields != nil {
			if record, rejection := telemetry.ParseJSON(text, ""); rejection == nil { // else a value is not a number
				m.Record = record
			}
		}
		w.rejected = append(w.rejected, m)
	}
	return nil
}

// send sends a request and returns the status and its messages. A status of 2xx means that every record of the request is in
// the spool: valid as a later reader finds it, or rejected with a reason. If all are rejected, they are dead letters and not in
// the spool. Any other status but 422 means that none is kept.
func (w *fuzzed) send(t *testing.T, r *http.Request, size int) (status int, kept []protocol.Message) {
	t.Helper()
	r.Header.Set("Authorization", "Bearer "+w.token)
	w.spool.entries, w.rejected = nil, nil
	out := httptest.NewRecorder()
	w.ServeHTTP(out, r)
	status = out.Code
	if status != http.StatusOK && status != http.StatusUnprocessableEntity {
		require.Contains(t, []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}, status, out.Body)
		require.Empty(t, w.spool.entries)
		require.Empty(t, w.rejected)
		var p rest.Details
		require.NoError(t, json.Unmarshal(out.Body.Bytes(), &p))
		require.NotEmpty(t, p.Detail)
		require.Less(t, len(p.Detail), 2000)
		return status, nil
	}
	require.LessOrEqual(t, len(w.spool.entries), 1)
	if len(w.spool.entries) == 0 {
		for i := range w.rejected {
			w.checkKept(t, &w.rejected[i])
		}
		return status, w.rejected
	}
	require.Empty(t, w.rejected)
	text := w.spool.entries[0]
	e, err := decodeEntry(text)
	require.NoError(t, err)
	require.Less(t, len(text), 4*size+len(e.Messages)*1000+1000, "the entry is not much longer than the request")
	for _, r := range e.Messages {
		w.checkKept(t, &r)
	}
	return status, e.Messages
}

func (w *fuzzed) checkKept(t *testing.T, r *protocol.Message) {
	t.Helper()
	require.NotEmpty(t, r.Raw)
	require.LessOrEqual(t, len(r.Raw), telemetry.MaxJSON+2000, "the names of the request may be added")
	rejection := w.check(&r.Record, w.now.UnixMilli())
	if r.Rejection == nil {
		makesSense(t, &r.Record, w.now)
		require.Equal(t, "wuxi", r.Record.FleetID)
		require.Nil(t, rejection, "an accepted record is valid: %s", r.Raw)
		return
	}
	require.Contains(t, telemetry.Reasons, r.Rejection.Reason)
	require.NotEmpty(t, r.Rejection.Remedy)
	require.Less(t, len(r.Rejection.Remedy), 1000)
	switch {
	case r.Rejection.Reason == telemetry.ForbiddenFleet:
		require.NotEqual(t, "wuxi", r.Rejection.Value)
	case r.Decoded():
		require.NotNil(t, rejection, "rejected as %v, but valid: %s", r.Rejection, r.Raw)
		require.Equal(t, r.Rejection.Reason, rejection.Reason, "%s", r.Raw)
	}
}

// makesSense checks a record against the bounds of the contract, independently of the code.
func makesSense(t *testing.T, r *telemetry.Record, now time.Time) {
	t.Helper()
	name := func(s string) bool {
		return len(s) >= 1 && len(s) <= 128 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") == ""
	}
	require.True(t, name(r.DeviceID) && name(r.FleetID) && (r.Zone == "" || name(r.Zone)), "%+v", r)
	require.False(t, r.Time().After(now.Add(5*time.Minute)) || now.Sub(r.Time()) > 30*24*time.Hour, "%v", r.Time())
	for _, v := range []struct {
		telemetry.Optional[float64]
		low, high float64
	}{
		{telemetry.Some(r.Lat), -90, 90}, {telemetry.Some(r.Lon), -180, 180}, {r.SpeedKmh, 0, 400}, {r.HeadingDeg, 0, 360},
		{r.TempC, -100, 200}, {r.AccuracyM, 0, 100_000}, {telemetry.Optional[float64]{Value: float64(r.BatteryPct.Value), Valid: r.BatteryPct.Valid}, 0, 100},
	} {
		require.True(t, !v.Valid || !math.IsNaN(v.Value) && v.Value >= v.low && v.Value <= v.high, "%+v", r)
	}
}

func post(path, kind, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r
}

const goodJSON = `{"device_id":"v1","fleet_id":"wuxi","timestamp":1795000000000,"lat":31.5,"lon":-120.25,"speed_kmh":"42.5","battery_pct":80,"zone":"depot"}`

func FuzzTelemetry(f *testing.F) {
	bare := `{"device_id":"v1","timestamp":"2026-11-18T10:26:40Z","lat":31.5,"lon":-120.25}`
	for _, body := range []string{
		goodJSON, "[" + goodJSON + "," + bare + "]", goodJSON + "\n\n" + bare + "\n{\"device_id\":\n", "{\n\"device_id\": \"v1\"\n}",
		`{"device_id":"v1","fleet_id":"other","timestamp":1,"lat":91,"lon":1}`, "[1,null,{}]", "\xef\xbb\xbf" + goodJSON, "\x1f\x8b", "[", "",
		`{"device_id":"v1","fleet_id":null,"timestamp":1,"lat":1,"lon":1}`, `{"Device_ID":"v1","LAT":1,"lat":2}`,
	} {
		f.Add(body, false)
		f.Add(body, true)
	}
	w := newFuzzed(f)
	f.Fuzz(func(t *testing.T, body string, lines bool) {
		kind := "application/json"
		if lines {
			kind = "application/x-ndjson"
		}
		status, kept := w.send(t, post("/v1/telemetry", kind, body), len(body))
		if status != http.StatusOK && status != http.StatusUnprocessableEntity {
			return
		}
		// Each message is the record at its index.
		var texts []string
		body = strings.TrimSpace(strings.TrimPrefix(body, "\xef\xbb\xbf"))
		var array []json.RawMessage
		switch {
		case !lines && json.Unmarshal([]byte(body), &array) == nil:
			for _, one := range array {
				texts = append(texts, string(one))
			}
		case !lines && json.Valid([]byte(body)) && !severalLines(body):
			texts = []string{strings.TrimSpace(body)}
		default:
			for _, line := range strings.Split(body, "\n") {
				if line = strings.TrimSpace(line); line != "" {
					texts = append(texts, line)
				}
			}
		}
		require.Len(t, kept, len(texts))
		for i, r := range kept {
			require.Equal(t, i, r.Index)
			direct, rejection := telemetry.ParseJSON([]byte(texts[i]), "wuxi")
			if rejection == nil && direct.FleetID == "wuxi" {
				rejection = w.check(&direct, w.now.UnixMilli())
			}
			if r.Rejection == nil {
				require.Nil(t, rejection)
				require.Equal(t, direct, r.Record)
			} else if rejection != nil {
				require.Equal(t, rejection.Reason, r.Rejection.Reason)
			}
		}
	})
}

// severalLines reports whether the first line of a text ends like an object.
func severalLines(body string) bool {
	first, _, more := strings.Cut(strings.TrimSpace(body), "\n")
	return more && strings.HasSuffix(strings.TrimSpace(first), "}")
}

func FuzzOsmAnd(f *testing.F) {
	for _, seed := range [][2]string{
		{"id=v1&lat=31.5&lon=120.25&timestamp=1795000000&speed=20&bearing=180&batt=77.6&accuracy=5&altitude=3&hdop=1", ""},
		{"", "deviceid=v1&fleet_id=wuxi&location=31.5,120.25&timestamp=2026-11-18T10:26:40+0000&valid=1&charge=true"},
		{"id=v1&token=secret&lat=1&lon=1", "lat=2"}, {"id=%zz&lat=1;lon=2", ""}, {"valid=false", ""},
		{"id=v1&lat=1&lon=1&speed=1e308", ""}, {"fleet_id=&timestamp=&id=a&lat=1&lon=1", ""}, {"timestamp=1&id=a&lat=1&lon=1", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	w := newFuzzed(f)
	f.Fuzz(func(t *testing.T, query, form string) {
		if text := strings.TrimSpace(form); text != "" && (text[0] == '{' || text[0] == '[') {
			t.Skip("JSON is FuzzTraccar's")
		}
		if strings.Contains(query+form, "{") {
			t.Skip("a parameter that looks like JSON when it is parsed again")
		}
		if strings.TrimSpace(query+form) != query+form {
			t.Skip("spaces around the parameters are not stored")
		}
		r := post("/v1/osmand", "application/x-www-form-urlencoded", form)
		r.URL = &url.URL{Path: "/v1/osmand", RawQuery: query}
		// A token in the parameters precedes the one in the header.
		if r.URL.Query().Get("token") != "" {
			t.Skip("another token")
		}
		status, kept := w.send(t, r, len(query)+len(form))
		if status == http.StatusOK {
			require.Len(t, kept, 1)
			require.False(t, slices.ContainsFunc(strings.Split(kept[0].Raw, "&"), func(p string) bool { return strings.HasPrefix(p, "token=") }))
		}
	})
}

func FuzzTraccar(f *testing.F) {
	const location = `{"timestamp":"2026-11-18T10:26:40Z","coords":{"latitude":31.5,"longitude":120.25,"accuracy":5,"speed":-1,"heading":180.5},"battery":{"level":0.5},"odometer":3}`
	for _, body := range []string{
		`{"location":` + location + `,"device_id":"v1"}`, `{"location":[` + location + `,{"event":"motion"},` + location + `],"device_id":7,"fleet_id":"wuxi"}`,
		`[{"location":` + location + `,"device_id":"v1"},{"location":{}}]`, `{"location":[1,null,{"coords":{}}],"device_id":"v1"}`, `{"location":[]}`, `{"location":3}`,
		`{"device_id":"` + strings.Repeat("x", 2000) + `","location":[` + strings.Repeat(`{"coords":{}},`, 40) + `{}]}`, `{"location":[` + strings.Repeat(`{"coords":{}},`, 60) + `{}]}`, "[", "{",
	} {
		f.Add(body)
	}
	w := newFuzzed(f)
	f.Fuzz(func(t *testing.T, body string) {
		if text := strings.TrimSpace(body); text == "" || text[0] != '{' && text[0] != '[' {
			t.Skip("not JSON")
		}
		w.send(t, post("/v1/osmand", "application/json", body), len(body))
	})
}

func FuzzOwnTracks(f *testing.F) {
	for _, body := range []string{
		`{"_type":"location","tst":1795000000,"lat":31.5,"lon":120.25,"vel":42,"cog":180,"batt":77,"acc":5,"tid":"ab","topic":"owntracks/u/phone"}`,
		`[{"_type":"location","tst":1795000000,"lat":31.5,"lon":120.25,"fleet_id":"wuxi","device_id":"v1"},{"_type":"waypoint"},{}]`,
		`{"_type":"encrypted","data":"x"}`, `{"_type":"location","topic":` + strings.Repeat("1", 3000) + `}`, `{"_type":3}`, "", "[]", "[1]", "{",
	} {
		f.Add(body, "user")
		f.Add(body, "")
	}
	f.Add("["+strings.Repeat(`{"_type":"location"},`, 40)+"{}]", strings.Repeat("\xff", 4000))
	w := newFuzzed(f)
	f.Fuzz(func(t *testing.T, body, device string) {
		r := post("/v1/owntracks", "application/json", body)
		r.Header.Set("X-Limit-D", device)
		status, kept := w.send(t, r, len(body))
		if status != http.StatusOK {
			return
		}
		// A message that is not stored is of another type.
		var array []json.RawMessage
		if json.Unmarshal([]byte(body), &array) != nil || !strings.HasPrefix(strings.TrimSpace(body), "[") {
			array = []json.RawMessage{json.RawMessage(body)}
		}
		others := 0
		for _, one := range array {
			var m struct {
				Type any `json:"_type"`
			}
			_ = json.Unmarshal(one, &m)
			if kind, _ := m.Type.(string); kind != "" && kind != "location" && kind != "encrypted" {
				others++
			}
		}
		if strings.TrimSpace(body) == "" {
			others = 1
		}
		require.GreaterOrEqual(t, len(kept)+others, len(array))
	})
}
