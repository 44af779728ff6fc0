package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// want is the record that all devices in these tests send.
func want(device string, at time.Time) telemetry.Record {
	return telemetry.Record{DeviceID: device, FleetID: "wuxi", TimeMs: at.UnixMilli(), Lat: 31.5702, Lon: 120.3012}
}

func TestOsmAnd(t *testing.T) {
	r := start(t)
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	full := func(w *telemetry.Record) {
		w.SpeedKmh, w.HeadingDeg, w.BatteryPct = telemetry.Some(62.042), telemetry.Some(270.0), telemetry.Some(int32(87))
	}
	accurate := func(w *telemetry.Record) {
		full(w)
		w.AccuracyM = telemetry.Some(5.0)
	}
	n := 0
	for name, c := range map[string]struct {
		query string // of a position at the time at; %d is that in seconds
		form  bool
		want  func(*telemetry.Record)
	}{
		"as Traccar Client sends it":  {"id=X&timestamp=%d&lat=31.5702&lon=120.3012&speed=33.5&bearing=270.0&altitude=12.0&accuracy=5.0&batt=87.0&charge=true", false, accurate},
		"as a form":                   {"id=X&timestamp=%d&lat=31.5702&lon=120.3012&speed=33.5&heading=270&batt=86.6&hdop=1.2&driverUniqueId=7", true, full},
		"deviceid and location":       {"deviceid=X&timestamp=%d&location=31.5702,120.3012", false, nil},
		"milliseconds":                {"id=X&timestamp=%d000&lat=31.5702&lon=120.3012", false, nil},
		"ISO 8601":                    {"id=X&timestamp=" + at.UTC().Format("2006-01-02T15:04:05.000Z") + "&lat=31.5702&lon=120.3012", false, nil},
		"with an offset, escaped":     {"id=X&timestamp=" + url.QueryEscape(at.In(time.FixedZone("", 8*3600)).Format(time.RFC3339)) + "&lat=31.5702&lon=120.3012", false, nil},
		"with an offset, not escaped": {"id=X&timestamp=" + at.In(time.FixedZone("", 8*3600)).Format(time.RFC3339) + "&lat=31.5702&lon=120.3012", false, nil},
		"with an offset, no colon":    {"id=X&timestamp=" + at.In(time.FixedZone("", -5400)).Format("2006-01-02T15:04:05-0700") + "&lat=31.5702&lon=120.3012", false, nil},
		"with a space":                {"id=X&timestamp=" + url.QueryEscape(at.UTC().Format("2006-01-02 15:04:05")) + "&lat=31.5702&lon=120.3012", false, nil},
		"below zero is unknown":       {"id=X&timestamp=%d&lat=31.5702&lon=120.3012&speed=-1.94&bearing=-1&batt=-100&accuracy=-1", false, nil},
		"valid":                       {"id=X&timestamp=%d&lat=31.5702&lon=120.3012&valid=true", false, nil},
		"standing":                    {"id=X&timestamp=%d&lat=31.5702&lon=120.3012&speed=0.0", false, func(w *telemetry.Record) { w.SpeedKmh = telemetry.Some(0.0) }},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			device := fmt.Sprint("phone-", n)
			query := strings.Replace(c.query, "X", device, 1)
			if strings.Contains(query, "%d") {
				query = fmt.Sprintf(query, at.Unix())
			}
			w := want(device, at)
			if c.want != nil {
				c.want(&w)
			}
			var got reply
			if c.form {
				got = r.do("POST", "/v1/osmand/"+r.token, "", strings.NewReader(query), "Content-Type", "application/x-www-form-urlencoded")
			} else {
				got = r.do("GET", "/?token="+r.token+"&"+query, "", nil)
			}
			require.Equal(t, 200, got.status, got.body)
			require.Equal(t, summary{Accepted: 1, Results: []result{{Index: 0, Status: "accepted"}}}, got.summary)
			items, _ := r.arrived(n)
			require.Equal(t, w, items[n-1].Record)
			require.NotContains(t, items[n-1].Raw, r.token)
			require.Equal(t, query, items[n-1].Raw, "as it arrived, without the token")
		})
	}
}

func TestOsmAndWithoutTime(t *testing.T) {
	r := start(t)
	require.Equal(t, 1, r.do("POST", "/v1/osmand?id=a&lat=1&lon=2", r.token, nil).Accepted)
	items, _ := r.arrived(1)
	require.WithinDuration(t, time.Now(), items[0].Time(), 5*time.Second)
}

// A client retries a position until it receives 2xx, before all others.
func TestRejectedPositionIsAnsweredOK(t *testing.T) {
	r := start(t)
	at := time.Now().Unix()
	n := 0
	for name, c := range map[string]struct {
		query  string
		reason telemetry.Reason
		field  string
	}{
		"no id":             {"lat=1&lon=2&timestamp=%d", telemetry.MissingField, "device_id"},
		"no latitude":       {"id=a&lon=2&timestamp=%d", telemetry.MissingField, "lat"},
		"no number":         {"id=a&lat=N31&lon=2&timestamp=%d", telemetry.Malformed, "lat"},
		"half a location":   {"id=a&location=31.5&timestamp=%d", telemetry.Malformed, "location"},
		"no fix":            {"id=a&lat=1&lon=2&valid=0&timestamp=%d", telemetry.ZeroPosition, "valid"},
		"the gulf":          {"id=a&lat=0.0&lon=0.0&timestamp=%d", telemetry.ZeroPosition, "lat"},
		"a bad time":        {"id=a&lat=1&lon=2&timestamp=yesterday%d", telemetry.BadTimestamp, "timestamp"},
		"a charge":          {"id=a&lat=1&lon=2&batt=101&timestamp=%d", telemetry.BatteryRange, "battery_pct"},
		"an accuracy":       {"id=a&lat=1&lon=2&accuracy=100000.1&timestamp=%d", telemetry.AccuracyRange, "accuracy_m"},
		"accuracy in words": {"id=a&lat=1&lon=2&accuracy=good&timestamp=%d", telemetry.Malformed, "accuracy_m"},
		"an id":             {"id=a%%20b&lat=1&lon=2&timestamp=%d", telemetry.BadID, "device_id"},
		"a broken escape":   {"id=a%%zz&lat=1&lon=2&timestamp=%d", telemetry.Malformed, ""},
		"another fleet":     {"id=a&lat=1&lon=2&timestamp=%d&fleet_id=suzhou", telemetry.ForbiddenFleet, "fleet_id"},
		"a time long since": {"id=a&lat=1&lon=2&timestamp=9%.0d0000000", telemetry.TooOld, "timestamp"},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			query := fmt.Sprintf(c.query, at)
			if c.reason == telemetry.TooOld {
				query = "id=a&lat=1&lon=2&timestamp=90000000"
			}
			got := r.do("GET", "/v1/osmand?"+query, r.token, nil)
			require.Equal(t, 200, got.status, got.body)
			require.Equal(t, 1, got.Rejected)
			require.Equal(t, c.reason, got.Results[0].Reason)
			require.Equal(t, c.field, got.Results[0].Field)
			_, rejected := r.arrived(n)
			require.Contains(t, rejected[n-1].Raw, query)
		})
	}
	require.Equal(t, 400, r.do("GET", "/", r.token, nil).status, "no parameters")
	require.Equal(t, 400, r.do("GET", "/?token="+r.token, "", nil).status)
	response, err := r.client.Head(r.url + "/?id=a&lat=1&lon=2&token=" + r.token)
	require.NoError(t, err)
	require.Equal(t, 405, response.StatusCode)
}

func TestTraccar(t *testing.T) {
	r := start(t)
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	location := func(at time.Time, more string) string {
		return fmt.Sprintf(`{"timestamp":%q,"coords":{"latitude":31.5702,"longitude":120.3012,"accuracy":4.2,%s"altitude":11},"is_moving":true,"odometer":7,
			"event":"motionchange","battery":{"level":0.76,"is_charging":false},"activity":{"type":"in_vehicle"},"extras":{}}`,
			at.UTC().Format("2006-01-02T15:04:05.000Z"), more)
	}
	charged := want("48241179", at)
	charged.BatteryPct, charged.AccuracyM = telemetry.Some(int32(76)), telemetry.Some(4.2)
	moving := charged
	moving.SpeedKmh, moving.HeadingDeg = telemetry.Some(45.0), telemetry.Some(181.0)
	later := charged
	later.TimeMs += 1000
	n := 0
	for name, c := range map[string]struct {
		body    string
		want    []telemetry.Record
		ignored int
	}{
		"one":              {`{"location":` + location(at, `"speed":12.5,"heading":181,`) + `,"device_id":"48241179"}`, []telemetry.Record{moving}, 0},
		"unknown":          {`{"device_id":48241179,"location":` + location(at, `"speed":-1,"heading":-1,`) + `}`, []telemetry.Record{charged}, 0},
		"a batch":          {`{"device_id":"48241179","location":[` + location(at, "") + "," + location(at.Add(time.Second), "") + `]}`, []telemetry.Record{charged, later}, 0},
		"an array":         {`[{"device_id":"48241179","location":` + location(at, "") + `},{"device_id":"48241179","location":{"event":"providerchange"}}]`, []telemetry.Record{charged}, 1},
		"without a place":  {`{"device_id":"48241179","location":{"event":"heartbeat","timestamp":"2026-01-01T00:00:00Z"}}`, nil, 1},
		"a charge unknown": {strings.Replace(`{"device_id":"48241179","location":`+location(at, "")+`}`, "0.76", "-1", 1), []telemetry.Record{func() telemetry.Record { r := charged; r.BatteryPct = telemetry.Optional[int32]{}; return r }()}, 0},
		"accuracy unknown": {strings.Replace(`{"device_id":"48241179","location":`+location(at, "")+`}`, "4.2", "-1", 1), []telemetry.Record{func() telemetry.Record { r := charged; r.AccuracyM = telemetry.Optional[float64]{}; return r }()}, 0},
		"a whole charge":   {strings.Replace(`{"device_id":"48241179","location":`+location(at, "")+`}`, "0.76", "1", 1), []telemetry.Record{func() telemetry.Record { r := charged; r.BatteryPct.Value = 100; return r }()}, 0},
		"with line breaks": {"\n" + `{"location":` + location(at, "") + `,"device_id":"48241179"}` + "\n", []telemetry.Record{charged}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.do("POST", "/v1/osmand/"+r.token, "", strings.NewReader(c.body), "Content-Type", "application/json")
			require.Equal(t, 200, got.status, got.body)
			require.Equal(t, len(c.want), got.Accepted+got.Duplicates, got.body)
			require.Equal(t, c.ignored, got.Ignored)
			n += len(c.want)
			items, _ := r.arrived(n)
			for i, w := range c.want {
				item := items[n-len(c.want)+i]
				require.Equal(t, w, item.Record)
				require.Equal(t, int64(i), item.Position)
			}
		})
	}
	require.Equal(t, 2.0, r.metric("fleet_etl_api_records_total", "protocol", "traccar", "status", "ignored"))
}

func TestRejectedTraccarIsAnsweredOK(t *testing.T) {
	r := start(t)
	n := 0
	for name, c := range map[string]struct {
		body   string
		reason telemetry.Reason
		field  string
	}{
		"torn":               {`{"location":{"coords"`, telemetry.Malformed, ""},
		"a torn array":       {`[{"location":`, telemetry.Malformed, ""},
		"our own form":       {`{"device_id":"a","lat":1,"lon":2}`, telemetry.Malformed, ""},
		"coords of a type":   {`{"device_id":"a","location":{"coords":[1,2]}}`, telemetry.Malformed, "location"},
		"a value of a type":  {`{"device_id":"a","location":{"timestamp":"2026-01-01T00:00:00Z","coords":{"latitude":true,"longitude":2}}}`, telemetry.Malformed, "latitude"},
		"accuracy of a type": {`{"device_id":"a","location":{"timestamp":"2026-01-01T00:00:00Z","coords":{"latitude":1,"longitude":2,"accuracy":[5]}}}`, telemetry.Malformed, "accuracy"},
		"no device":          {`{"location":{"timestamp":"2026-01-01T00:00:00Z","coords":{"latitude":1,"longitude":2}}}`, telemetry.MissingField, "device_id"},
		"no time":            {`{"device_id":"a","location":{"coords":{"latitude":1,"longitude":2}}}`, telemetry.MissingField, "timestamp"},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			got := r.do("POST", "/", r.token, strings.NewReader(c.body), "Content-Type", "application/json")
			require.Equal(t, 200, got.status, got.body)
			require.Equal(t, 1, got.Rejected, got.body)
			require.Equal(t, c.reason, got.Results[0].Reason)
			require.Equal(t, c.field, got.Results[0].Field)
			_, rejected := r.arrived(n)
			require.Contains(t, rejected[n-1].Raw, strings.Trim(c.body, "{}"))
		})
	}
}

func TestOwnTracks(t *testing.T) {
	r := start(t)
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	message := func(more string) string {
		return fmt.Sprintf(`{"_type":"location",%s"tid":"JP","lat":31.5702,"lon":120.3012,"tst":%d,"acc":12,"alt":13,"bs":1,"t":"t"}`, more, at.Unix())
	}
	fixed := func(device string) telemetry.Record {
		r := want(device, at)
		r.AccuracyM = telemetry.Some(12.0)
		return r
	}
	vague := strings.NewReplacer(`"acc":12`, `"acc":-1`)
	moving := fixed("jane:phone")
	moving.SpeedKmh, moving.HeadingDeg, moving.BatteryPct = telemetry.Some(54.0), telemetry.Some(270.0), telemetry.Some(int32(76))
	n := 0
	for name, c := range map[string]struct {
		path, body string
		headers    []string
		want       telemetry.Record
	}{
		"by headers":       {"", message(`"vel":54,"cog":270,"batt":76,`), []string{"X-Limit-U", "jane", "X-Limit-D", "phone"}, moving},
		"by parameters":    {"?u=jane&d=phone", message(""), nil, fixed("jane:phone")},
		"by topic":         {"", message(`"topic":"owntracks/jane/phone",`), nil, fixed("jane:phone")},
		"headers go first": {"", message(`"topic":"owntracks/x/y",`), []string{"X-Limit-U", "jane", "X-Limit-D", "phone"}, fixed("jane:phone")},
		"a user alone":     {"", message(""), []string{"X-Limit-U", "jane"}, fixed("jane")},
		"by login":         {"", message(""), []string{"X-Limit-D", "phone"}, fixed("login:phone")},
		"unknown":          {"?u=jane", vague.Replace(message(`"vel":-1,"cog":-1,`)), nil, want("jane", at)},
		"an array":         {"?u=jane", "[" + message("") + "]", nil, fixed("jane")},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			login := bearing("")
			login.SetBasicAuth("login", r.token)
			got := r.do("POST", "/v1/owntracks"+c.path, "", strings.NewReader(c.body), append(c.headers, "Authorization", login.Header.Get("Authorization"))...)
			require.Equal(t, 200, got.status, got.body)
			require.Equal(t, "[]\n", got.body)
			require.Equal(t, "application/json", got.header.Get("Content-Type"))
			items, _ := r.arrived(n)
			require.Equal(t, c.want, items[n-1].Record)
		})
	}
}

func TestOwnTracksOtherMessages(t *testing.T) {
	r := start(t)
	for _, body := range []string{
		"", `{"_type":"lwt","tst":1}`, `{"_type":"transition","event":"enter"}`, `{"_type":"waypoints","waypoints":[]}`, `{"_type":"status"}`,
	} {
		got := r.do("POST", "/v1/owntracks?u=jane", r.token, strings.NewReader(body))
		require.Equal(t, 200, got.status, body)
		require.Equal(t, "[]\n", got.body)
	}
	appended, _ := r.spool.counts()
	require.Zero(t, appended)
	require.Equal(t, 4.0, r.metric("fleet_etl_api_records_total", "protocol", "owntracks", "status", "ignored"))

	for i, c := range []struct {
		body   string
		reason telemetry.Reason
		field  string
	}{
		{`{"_type":"encrypted","data":"c2VjcmV0"}`, telemetry.Malformed, "_type"},
		{`{"_type":"location","lat":1,"lon":2}`, telemetry.MissingField, "timestamp"},
		{`{"lat":1,"lon":2,"tst":1}`, telemetry.Malformed, "_type"},
		{`{"_type":"location"`, telemetry.Malformed, ""},
		{`{"_type":"location","lat":{},"lon":2,"tst":1}`, telemetry.Malformed, "lat"},
	} {
		got := r.do("POST", "/v1/owntracks?u=jane", r.token, strings.NewReader(c.body))
		require.Equal(t, "[]\n", got.body, "the app would retry after any other response")
		_, rejected := r.arrived(i + 1)
		require.Equal(t, c.reason, rejected[i].Reason, c.body)
		require.Equal(t, c.field, rejected[i].Field, c.body)
		require.Contains(t, rejected[i].Raw, strings.Trim(c.body, "{}"))
	}
}
