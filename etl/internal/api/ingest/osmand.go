package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// osmand takes what OsmAnd, Traccar Client and everything that was made after them send: one position in parameters of
// the address or of a form (https://www.traccar.org/osmand), or since Traccar Client 9 as JSON.
//
// Those clients let go of a position at any 2xx and send it again, before all others, at anything else. So a position
// that is refused is answered 200: it would never be better, and would keep back all that come after it.
func (c *call) osmand() *problem {
	if c.r.Method == http.MethodHead {
		return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "a position is not sent with HEAD: use GET or POST")
	}
	query := c.r.URL.Query()
	presented := c.r.PathValue("token")
	if presented == "" {
		presented = query.Get("token")
	}
	if p := c.authenticate(presented, "Bearer"); p != nil {
		return p
	}
	var text []byte
	if c.r.Method == http.MethodPost {
		var p *problem
		if text, p = c.body(); p != nil {
			return p
		}
	}
	text = bytes.TrimSpace(text)
	if len(text) > 0 && (text[0] == '{' || text[0] == '[') {
		return c.traccar(text)
	}
	raw := withoutToken(c.r.URL.RawQuery)
	if form := withoutToken(string(text)); form != "" {
		raw = strings.TrimPrefix(raw+"&"+form, "&")
	}
	if raw == "" {
		return refuse(http.StatusBadRequest, "malformed", "there is no position in the request: send id, lat, lon and timestamp")
	}
	r := received{}
	f, rejection := queryFix(raw)
	owed := provenance{}
	if f.fleet == "" {
		owed.fleet, f.fleet = c.fleet(), c.fleet()
	}
	if f.time == "" {
		owed.at, f.time = c.now, c.now.UTC().Format(time.RFC3339Nano)
	}
	r.raw = cut(queryWithProvenance(raw, owed))
	if r.rejection = rejection; rejection == nil {
		r.record, r.rejection = f.record()
	}
	a, p := c.take(protocolOsmAnd, []received{r}, true)
	if p == nil {
		writeJSON(c.w, http.StatusOK, a)
	}
	return p
}

// withoutToken leaves the token out of parameters, so that it is kept nowhere.
func withoutToken(query string) string {
	parameters := slices.DeleteFunc(strings.Split(query, "&"), func(p string) bool {
		return p == "" || p == "token" || strings.HasPrefix(p, "token=")
	})
	return strings.Join(parameters, "&")
}

// queryFix reads parameters. Those that we have no use for (altitude, hdop, charge, …) are passed over.
func queryFix(raw string) (fix, *telemetry.Rejection) {
	f := fix{kmh: knots, percent: 1}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return f, telemetry.Reject(telemetry.Malformed, "", raw, "send parameters as a URL has them: "+err.Error())
	}
	get := func(names ...string) string {
		for _, name := range names {
			for _, v := range values[name] {
				if v = strings.TrimSpace(v); v != "" {
					return v
				}
			}
		}
		return ""
	}
	f.device, f.fleet = get("id", "deviceid", "device_id"), get("fleet_id")
	f.time, f.lat, f.lon = queryTime(get("timestamp")), get("lat"), get("lon")
	f.speed, f.heading, f.battery, f.accuracy = get("speed"), get("bearing", "heading"), get("batt"), get("accuracy")
	if location := get("location"); location != "" {
		lat, lon, found := strings.Cut(location, ",")
		if !found {
			return f, telemetry.Reject(telemetry.Malformed, "location", location, "give latitude and longitude with a comma between")
		}
		f.lat, f.lon = lat, lon
	}
	switch valid := strings.ToLower(get("valid")); valid {
	case "", "1", "true":
		return f, nil
	default:
		return f, telemetry.Reject(telemetry.ZeroPosition, "valid", valid, "send no position while the receiver has no fix")
	}
}

// queryTime mends two things that devices do to ISO 8601: a + that was not escaped, and an offset without colon.
func queryTime(s string) string {
	if len(s) < 20 || s[4] != '-' || s[10] != 'T' {
		return s
	}
	s = strings.Replace(s, " ", "+", 1)
	if t, err := time.Parse("2006-01-02T15:04:05Z0700", s); err == nil {
		return t.Format(time.RFC3339Nano)
	}
	return s
}

// traccar takes the JSON of Traccar Client 9, which is that of its background location library.
func (c *call) traccar(text []byte) *problem {
	texts := [][]byte{text}
	if text[0] == '[' {
		var err error
		if texts, err = splitArray(text, c.Limits.MaxRecords); errors.Is(err, errTooMany) {
			return c.tooLarge()
		} else if err != nil {
			texts = [][]byte{text} // which is refused as a whole
		}
	}
	var records []received
	ignored := 0
	for _, text := range texts {
		some, none, err := traccarRecords(text, provenance{fleet: c.fleet()}, c.Limits.MaxRecords-len(records))
		if err != nil {
			return c.tooLarge()
		}
		records, ignored = append(records, some...), ignored+none
	}
	for i := range records {
		records[i].index = i
	}
	a, p := c.take(protocolTraccar, records, true)
	if p != nil {
		return p
	}
	a.Ignored = ignored
	c.metrics.ignored(protocolTraccar, ignored)
	writeJSON(c.w, http.StatusOK, a)
	return nil
}

type traccarMessage struct {
	DeviceID json.RawMessage `json:"device_id,omitempty"`
	FleetID  json.RawMessage `json:"fleet_id,omitempty"`
	Location json.RawMessage `json:"location"`
}

type traccarLocation struct {
	Timestamp json.RawMessage `json:"timestamp"`
	Coords    *struct {
		Latitude  json.RawMessage `json:"latitude"`
		Longitude json.RawMessage `json:"longitude"`
		Accuracy  json.RawMessage `json:"accuracy"` // metres
		Speed     json.RawMessage `json:"speed"`    // m/s
		Heading   json.RawMessage `json:"heading"`  // degrees
	} `json:"coords"`
	Battery struct {
		Level json.RawMessage `json:"level"` // 0 to 1
	} `json:"battery"`
}

// maxTraccarName bounds what each location of a batch repeats of its message.
const maxTraccarName = 1 << 10

// traccarRecords reads a message: of one location, or of several when the library sends in batches; more records than
// most are errTooMany. Messages without coordinates tell of something else than a position; they are counted.
func traccarRecords(text []byte, c provenance, most int) (records []received, ignored int, err error) {
	malformed := func(remedy string) []received {
		return []received{{raw: cut(string(text)), rejection: telemetry.Reject(telemetry.Malformed, "", string(text), remedy)}}
	}
	if most < 1 {
		return nil, 0, errTooMany
	}
	var m traccarMessage
	if err := json.Unmarshal(text, &m); err != nil {
		return malformed("send valid JSON: " + err.Error()), 0, nil
	}
	if len(m.Location) == 0 || m.Location[0] != '{' && m.Location[0] != '[' {
		return malformed("send location and device_id; records of our own form go to /v1/telemetry"), 0, nil
	}
	if m.Location[0] == '{' {
		records, ignored = traccarRecord(records, m, string(text), c)
		return records, ignored, nil
	}
	if len(m.DeviceID)+len(m.FleetID) > maxTraccarName {
		return malformed("send a device_id and fleet_id that are names"), 0, nil
	}
	var locations []json.RawMessage
	_ = json.Unmarshal(m.Location, &locations) // it was read as JSON before
	for _, m.Location = range locations {
		one, _ := json.Marshal(m) // of values that were read as JSON
		var none int
		records, none = traccarRecord(records, m, string(one), c)
		if ignored += none; len(records) > most {
			return nil, 0, errTooMany
		}
	}
	return records, ignored, nil
}

func traccarRecord(records []received, m traccarMessage, raw string, c provenance) ([]received, int) {
	r := received{raw: cut(raw)}
	var l traccarLocation
	if err := json.Unmarshal(m.Location, &l); err != nil {
		r.rejection = telemetry.Reject(telemetry.Malformed, "location", string(m.Location), "send coordinates as the protocol has them: "+err.Error())
		return append(records, r), 0
	}
	if l.Coords == nil {
		return records, 1
	}
	f := fix{kmh: metresPerSecond, percent: 100}
	r.rejection = jsonTexts(
		jsonValue{"device_id", m.DeviceID, &f.device}, jsonValue{"fleet_id", m.FleetID, &f.fleet}, jsonValue{"timestamp", l.Timestamp, &f.time},
		jsonValue{"latitude", l.Coords.Latitude, &f.lat}, jsonValue{"longitude", l.Coords.Longitude, &f.lon},
		jsonValue{"speed", l.Coords.Speed, &f.speed}, jsonValue{"heading", l.Coords.Heading, &f.heading},
		jsonValue{"accuracy", l.Coords.Accuracy, &f.accuracy}, jsonValue{"level", l.Battery.Level, &f.battery},
	)
	if blank(m.FleetID) {
		f.fleet = c.fleet
		r.raw = cut(withProvenance(raw, c))
	}
	if r.rejection == nil {
		r.record, r.rejection = f.record()
	}
	return append(records, r), 0
}
