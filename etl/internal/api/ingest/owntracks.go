package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"unicode"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// owntracks takes what the OwnTracks apps post (https://owntracks.org/booklet/tech/http/ and …/json/). The app lets go
// of a message at any 2xx with a JSON array, and sends it again, before all others, at anything else. So what is
// refused, and what is no position, is answered as what is accepted.
func (c *call) owntracks() *problem {
	query := c.r.URL.Query()
	if p := c.authenticate(query.Get("token"), "Basic"); p != nil {
		return p
	}
	text, p := c.body()
	if p != nil {
		return p
	}
	texts := [][]byte{bytes.TrimSpace(text)}
	switch {
	case len(texts[0]) == 0: // a friend was deleted in the app
		texts = nil
	case texts[0][0] == '[':
		some, err := splitArray(texts[0], c.Limits.MaxRecords)
		if errors.Is(err, errTooMany) {
			return c.tooLarge()
		}
		if err == nil {
			texts = some
		}
	}
	owed := provenance{fleet: c.fleet(), device: c.ownTracksDevice()}
	var records []received
	ignored := 0
	for i, text := range texts {
		if isNoPosition(text) {
			ignored++
			continue
		}
		r := ownTracksRecord(text, owed)
		r.index = i
		records = append(records, r)
	}
	if _, p := c.take(protocolOwnTracks, records, false); p != nil {
		return p
	}
	c.metrics.ignored(protocolOwnTracks, ignored)
	writeJSON(c.w, http.StatusOK, []struct{}{})
	return nil
}

// ownTracksDevice is the device of a request: user and device of the app, whose headers or parameters hold them, or the
// user of its login.
func (c *call) ownTracksDevice() string {
	query := c.r.URL.Query()
	user, device := c.r.Header.Get("X-Limit-U"), c.r.Header.Get("X-Limit-D")
	if user == "" {
		user = query.Get("u")
	}
	if device == "" {
		device = query.Get("d")
	}
	if user == "" && device != "" {
		user, _, _ = c.r.BasicAuth()
	}
	return bounded(ownTracksName(user, device))
}

func ownTracksName(user, device string) string {
	return strings.TrimFunc(user+":"+device, func(r rune) bool { return r == ':' || unicode.IsSpace(r) })
}

// isNoPosition tells a message of another kind: a waypoint, a step count, … Those that are encrypted are positions that
// we can't read.
func isNoPosition(text []byte) bool {
	var m struct {
		Type string `json:"_type"`
	}
	return json.Unmarshal(text, &m) == nil && m.Type != "location" && m.Type != "encrypted" && m.Type != ""
}

func ownTracksRecord(text []byte, c provenance) received {
	r := received{raw: cut(string(text))}
	var m struct {
		Type     string          `json:"_type"`
		Topic    string          `json:"topic"` // owntracks/USER/DEVICE
		DeviceID json.RawMessage `json:"device_id"`
		FleetID  json.RawMessage `json:"fleet_id"`
		Tst      json.RawMessage `json:"tst"` // seconds
		Lat      json.RawMessage `json:"lat"`
		Lon      json.RawMessage `json:"lon"`
		Acc      json.RawMessage `json:"acc"`  // metres
		Vel      json.RawMessage `json:"vel"`  // km/h
		Cog      json.RawMessage `json:"cog"`  // degrees
		Batt     json.RawMessage `json:"batt"` // percent
	}
	if err := json.Unmarshal(text, &m); err != nil {
		r.rejection = telemetry.Reject(telemetry.Malformed, "", r.raw, "send valid JSON: "+err.Error())
		return r
	}
	if m.Type == "encrypted" {
		r.rejection = telemetry.Reject(telemetry.Malformed, "_type", m.Type, "switch the payload encryption off in the app, and use https")
		return r
	}
	if m.Type != "location" {
		r.rejection = telemetry.Reject(telemetry.Malformed, "_type", m.Type, "send a message of _type location")
		return r
	}
	f := fix{kmh: kmPerHour, percent: 1}
	r.rejection = jsonTexts(
		jsonValue{"device_id", m.DeviceID, &f.device}, jsonValue{"fleet_id", m.FleetID, &f.fleet},
		jsonValue{"tst", m.Tst, &f.time}, jsonValue{"lat", m.Lat, &f.lat}, jsonValue{"lon", m.Lon, &f.lon},
		jsonValue{"vel", m.Vel, &f.speed}, jsonValue{"cog", m.Cog, &f.heading}, jsonValue{"batt", m.Batt, &f.battery},
		jsonValue{"acc", m.Acc, &f.accuracy},
	)
	owed := provenance{}
	if blank(m.FleetID) {
		owed.fleet, f.fleet = c.fleet, c.fleet
	}
	if blank(m.DeviceID) {
		owed.device, f.device = c.device, c.device
	}
	r.raw = cut(withProvenance(string(text), owed))
	if parts := strings.Split(m.Topic, "/"); f.device == "" && len(parts) >= 3 {
		f.device = ownTracksName(parts[1], parts[2])
	}
	if r.rejection == nil {
		r.record, r.rejection = f.record()
	}
	return r
}
