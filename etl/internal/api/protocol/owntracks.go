package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// OwnTracks decodes what the OwnTracks apps send (https://owntracks.org/booklet/tech/json/): one message or an array. More
// records than most are ErrTooMany. ignored counts messages of other types, such as waypoints.
func OwnTracks(body []byte, d Defaults, most int) (messages []Message, ignored int, err error) {
	body = bytes.TrimSpace(body)
	texts := [][]byte{body}
	switch {
	case len(body) == 0: // a friend was deleted in the app
		return nil, 0, nil
	case body[0] == '[':
		switch parts, err := splitArray(body, most); {
		case errors.Is(err, ErrTooMany):
			return nil, 0, err
		case err == nil:
			texts = parts
		}
	}
	for i, text := range texts {
		if otherType(text) {
			ignored++
			continue
		}
		m := ownTracksMessage(text, Defaults{Fleet: d.Fleet, Device: d.Device})
		m.Index = i
		messages = append(messages, m)
	}
	return messages, ignored, nil
}

// OwnTracksDevice is the device of a user and a device of the app.
func OwnTracksDevice(user, device string) string {
	return strings.TrimFunc(user+":"+device, func(r rune) bool { return r == ':' || unicode.IsSpace(r) })
}

// otherType reports whether a message is not a position: a waypoint, a step count, and so on. Encrypted messages are
// positions that we can't read.
func otherType(text []byte) bool {
	var m struct {
		Type string `json:"_type"`
	}
	return json.Unmarshal(text, &m) == nil && m.Type != "location" && m.Type != "encrypted" && m.Type != ""
}

func ownTracksMessage(text []byte, d Defaults) Message {
	m := Message{Raw: truncate(string(text))}
	var o struct {
		Type     string          `json:"_type"`
		Topic    string          `json:"topic"` // owntracks/USER/DEVICE
		DeviceID json.RawMessage `json:"device_id"`
		FleetID  json.RawMessage `json:"fleet_id"`
		Tst      json.RawMessage `json:"tst"` // seconds
		Lat      json.RawMessage `json:"lat"`
		Lon      json.RawMessage `json:"lon"`
		Acc      json.RawMessage `json:"acc"`  // meters
		Vel      json.RawMessage `json:"vel"`  // km/h
		Cog      json.RawMessage `json:"cog"`  // degrees
		Batt     json.RawMessage `json:"batt"` // percent
	}
	if err := json.Unmarshal(text, &o); err != nil {
		m.Rejection = telemetry.Reject(telemetry.Malformed, "", m.Raw, "send valid JSON: "+err.Error())
		return m
	}
	if o.Type == "encrypted" {
		m.Rejection = telemetry.Reject(telemetry.Malformed, "_type", o.Type, "switch payload encryption off in the app, and use https")
		return m
	}
	if o.Type != "location" {
		m.Rejection = telemetry.Reject(telemetry.Malformed, "_type", o.Type, "send a message of _type location")
		return m
	}
	p := position{kmh: kmPerHour, percent: 1}
	m.Rejection = readTexts(
		jsonField{"device_id", o.DeviceID, &p.device}, jsonField{"fleet_id", o.FleetID, &p.fleet},
		jsonField{"tst", o.Tst, &p.time}, jsonField{"lat", o.Lat, &p.lat}, jsonField{"lon", o.Lon, &p.lon},
		jsonField{"vel", o.Vel, &p.speed}, jsonField{"cog", o.Cog, &p.heading}, jsonField{"batt", o.Batt, &p.battery},
		jsonField{"acc", o.Acc, &p.accuracy},
	)
	added := Defaults{}
	if blank(o.FleetID) {
		added.Fleet, p.fleet = d.Fleet, d.Fleet
	}
	if blank(o.DeviceID) {
		added.Device, p.device = d.Device, d.Device
	}
	m.Raw = truncate(added.addToJSON(string(text)))
	if parts := strings.Split(o.Topic, "/"); p.device == "" && len(parts) >= 3 {
		p.device = OwnTracksDevice(parts[1], parts[2])
	}
	if m.Rejection == nil {
		m.Record, m.Rejection = p.record()
	}
	return m
}
