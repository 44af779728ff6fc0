package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// OwnTracks decodes what the OwnTracks apps send (https://owntracks.org/booklet/tech/json/): one message or an array. More
// records than most are ErrTooMany. ignored counts messages of other types, such as waypoints.
func OwnTracks(body []byte, d Defaults, most int) (messages []Message, ignored int, err error) {
	if len(bytes.TrimSpace(body)) == 0 { // a friend was deleted in the app
		return nil, 0, nil
	}
	texts, err := splitMessages(body, most)
	for i, text := range texts {
		m, isPosition := ownTracksMessage(text, d)
		if !isPosition {
			ignored++
			continue
		}
		m.Index = i
		messages = append(messages, m)
	}
	return messages, ignored, err
}

// OwnTracksDevice is the device of a user and a device of the app.
func OwnTracksDevice(user, device string) string {
	return strings.TrimFunc(user+":"+device, func(r rune) bool { return r == ':' || unicode.IsSpace(r) })
}

// ownTracksMessage reads a message. isPosition is false for a waypoint, a step count, and so on. Encrypted messages are
// positions that we can't read.
func ownTracksMessage(text []byte, d Defaults) (m Message, isPosition bool) {
	reject := func(field, value, remedy string) (Message, bool) {
		return newMessage(string(text), telemetry.Record{}, telemetry.Reject(telemetry.Malformed, field, value, remedy), d), true
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return reject("", string(text), "send valid JSON: "+err.Error())
	}
	var kind, topic string                // topic: owntracks/USER/DEVICE
	_ = json.Unmarshal(o["_type"], &kind) // anything but a text is none
	p := position{kmh: kmPerHour, percent: 1}
	rejection := o.read(
		field{"topic", &topic}, field{"device_id", &p.device}, field{"fleet_id", &p.fleet}, field{"tst", &p.time},
		field{"lat", &p.lat}, field{"lon", &p.lon}, field{"acc", &p.accuracy}, field{"vel", &p.speed}, field{"cog", &p.heading}, field{"batt", &p.battery},
	)
	switch kind {
	case "location":
	case "encrypted":
		return reject("_type", kind, "switch payload encryption off in the app, and use https")
	case "":
		return reject("_type", kind, "send a message of _type location")
	default:
		return Message{}, false
	}
	if parts := strings.Split(topic, "/"); strings.TrimSpace(p.device) == "" && d.Device == "" && len(parts) >= 3 {
		p.device = OwnTracksDevice(parts[1], parts[2])
	}
	return p.message(string(text), d, rejection), true
}
