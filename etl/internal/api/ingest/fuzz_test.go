package ingest

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net"
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

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// wild is an API without its server, for any request.
type wild struct {
	*Source
	journal *memory
	token   string
	now     time.Time
	check   func(*telemetry.Record, int64) *telemetry.Rejection
}

// nobody is a listener that nobody connects to.
type nobody struct{ net.Listener }

func newWild(f *testing.F) *wild {
	w := &wild{journal: newMemory(), now: time.UnixMilli(1_795_000_000_123), check: validate.NewBounds(nil).Check}
	var hash string
	w.token, hash = NewToken()
	path := filepath.Join(f.TempDir(), "tokens")
	require.NoError(f, os.WriteFile(path, []byte("wuxi "+hash), 0o600))
	tokens, err := LoadTokens(path)
	require.NoError(f, err)
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	limits := DefaultLimits()
	limits.TokenRate, limits.DeviceRate = 0, 0
	limits.MaxRecords = 50
	w.Source, err = New(Options{
		Listener: nobody{}, Journal: w.journal, Full: func(error) bool { return false }, Tokens: tokens, Check: w.check,
		Seen:   func(*telemetry.Record) telemetry.Seen { return telemetry.New },
		Limits: limits, Logger: logger, Registerer: prometheus.NewRegistry(), Now: func() time.Time { return w.now },
	})
	require.NoError(f, err)
	return w
}

// send sends a request and gives the status and what the journal has of it. Whatever the request is, an answer of 2xx
// means that every record of it is in the journal: good as a later reader finds it, or refused with a reason; any other
// answer but 422 means that none is.
func (w *wild) send(t *testing.T, r *http.Request, size int) (status int, kept []received) {
	t.Helper()
	r.Header.Set("Authorization", "Bearer "+w.token)
	w.journal.entries = nil
	out := httptest.NewRecorder()
	w.ServeHTTP(out, r)
	status = out.Code
	if status != http.StatusOK && status != http.StatusUnprocessableEntity {
		require.Contains(t, []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}, status, out.Body)
		require.Empty(t, w.journal.entries)
		var p problem
		require.NoError(t, json.Unmarshal(out.Body.Bytes(), &p))
		require.NotEmpty(t, p.Message)
		require.Less(t, len(p.Message), 2000)
		return status, nil
	}
	require.LessOrEqual(t, len(w.journal.entries), 1)
	if len(w.journal.entries) == 0 {
		return status, nil
	}
	text := w.journal.entries[0]
	e, err := decodeEntry(text)
	require.NoError(t, err)
	require.Less(t, len(text), 4*size+len(e.records)*1000+1000, "what is kept is no more than what came")
	for _, r := range e.records {
		w.checkKept(t, &r)
	}
	return status, e.records
}

func (w *wild) checkKept(t *testing.T, r *received) {
	t.Helper()
	require.NotEmpty(t, r.raw)
	require.LessOrEqual(t, len(r.raw), telemetry.MaxRawLen)
	again, rejection := ParseRaw(r.raw)
	if rejection == nil {
		rejection = w.check(&again, w.now.UnixMilli())
	}
	if r.rejection == nil {
		makesSense(t, &r.record, w.now)
		require.Equal(t, "wuxi", r.record.FleetID)
		require.Nil(t, rejection, "what was taken can be read again from its text: %s", r.raw)
		require.Equal(t, r.record, again)
		return
	}
	require.Contains(t, telemetry.Reasons, r.rejection.Reason)
	require.NotEmpty(t, r.rejection.Remedy)
	require.Less(t, len(r.rejection.Remedy), 1000)
	switch {
	case len(r.raw) == telemetry.MaxRawLen: // cut
	case r.rejection.Reason == telemetry.UnknownFleet:
		require.NotEqual(t, "wuxi", r.rejection.Value)
	case r.rejection.Reason == telemetry.Malformed: // may be of another protocol
		require.NotNil(t, rejection, "refused as %v, but good when read again from %s", r.rejection, r.raw)
	default:
		require.NotNil(t, rejection, "refused as %v, but good when read again from %s", r.rejection, r.raw)
		require.Equal(t, r.rejection.Reason, rejection.Reason, "%s", r.raw)
	}
}

// makesSense holds a record against the bounds of the contract, which are written down here once more.
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
	w := newWild(f)
	f.Fuzz(func(t *testing.T, body string, lines bool) {
		kind := "application/json"
		if lines {
			kind = "application/x-ndjson"
		}
		status, kept := w.send(t, post("/v1/telemetry", kind, body), len(body))
		if status != http.StatusOK && status != http.StatusUnprocessableEntity {
			return
		}
		// Each record is what stands in its place.
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
			require.Equal(t, i, r.index)
			direct, rejection := telemetry.ParseJSON([]byte(texts[i]), "wuxi")
			if rejection == nil && direct.FleetID == "wuxi" {
				rejection = w.check(&direct, w.now.UnixMilli())
			}
			if r.rejection == nil {
				require.Nil(t, rejection)
				require.Equal(t, direct, r.record)
			} else if rejection != nil {
				require.Equal(t, rejection.Reason, r.rejection.Reason)
			}
		}
	})
}

// severalLines tells whether a text's first line ends like an object of its own.
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
	w := newWild(f)
	f.Fuzz(func(t *testing.T, query, form string) {
		if text := strings.TrimSpace(form); text != "" && (text[0] == '{' || text[0] == '[') {
			t.Skip("JSON is FuzzTraccar's")
		}
		if strings.Contains(query+form, "{") {
			t.Skip("a parameter that reads like JSON when it is replayed")
		}
		if strings.TrimSpace(query+form) != query+form {
			t.Skip("space around the parameters is no part of what is kept")
		}
		r := post("/v1/osmand", "application/x-www-form-urlencoded", form)
		r.URL = &url.URL{Path: "/v1/osmand", RawQuery: query}
		// A token in the parameters stands before that in the header.
		if r.URL.Query().Get("token") != "" {
			t.Skip("another token")
		}
		status, kept := w.send(t, r, len(query)+len(form))
		if status == http.StatusOK {
			require.Len(t, kept, 1)
			require.False(t, slices.ContainsFunc(strings.Split(kept[0].raw, "&"), func(p string) bool { return strings.HasPrefix(p, "token=") }))
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
	w := newWild(f)
	f.Fuzz(func(t *testing.T, body string) {
		if text := strings.TrimSpace(body); text == "" || text[0] != '{' && text[0] != '[' {
			t.Skip("no JSON")
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
	w := newWild(f)
	f.Fuzz(func(t *testing.T, body, device string) {
		r := post("/v1/owntracks", "application/json", body)
		r.Header.Set("X-Limit-D", device)
		status, kept := w.send(t, r, len(body))
		if status != http.StatusOK {
			return
		}
		// What is not kept is a message of another kind.
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

// FuzzTokens holds that a file of tokens that is taken lets in its own tokens and no others, each with its own rights.
func FuzzTokens(f *testing.F) {
	token, hash := NewToken()
	for _, text := range []string{
		"wuxi " + hash, "* " + hash + " read,write # x", "a " + hash + "\nb " + hash, "a  " + strings.ToUpper(hash) + "\tread\r\n", "# nothing", "wuxi " + token, "a b c d",
		"wuxi " + hash[:63], strings.Repeat("x", 70_000),
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "tokens")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		tokens, err := LoadTokens(path)
		if err != nil {
			for _, word := range bytes.Fields(text) {
				if len(word) == 64 {
					require.NotContains(t, err.Error(), string(word), "it may be a token")
				}
			}
			return
		}
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		_, known := tokens.Authenticate(request)
		require.False(t, known, "without a token")
		request.Header.Set("Authorization", "Bearer "+token)
		grant, known := tokens.Authenticate(request)
		require.Equal(t, bytes.Contains(bytes.ToLower(withoutComments(text)), []byte(hash)), known)
		if known {
			require.True(t, grant.Fleet == AllFleets || telemetry.ValidName(grant.Fleet))
			require.True(t, grant.Read || grant.Write)
		}
	})
}

func withoutComments(text []byte) (left []byte) {
	for _, line := range bytes.Split(text, []byte("\n")) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		left = append(append(left, line...), '\n')
	}
	return left
}
