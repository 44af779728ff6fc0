package protocol

import (
	"encoding/json"
	"errors"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Traccar decodes the JSON of Traccar Client 9, the format of its background location library: one message or an array of
// messages. More records than most are ErrTooMany. ignored counts the messages without coordinates, which report
// something else than a position.
func Traccar(body []byte, d Defaults, most int) (messages []Message, ignored int, err error) {
	texts := [][]byte{body}
	if body[0] == '[' {
		switch parts, err := splitArray(body, most); {
		case errors.Is(err, ErrTooMany):
			return nil, 0, err
		case err == nil:
			texts = parts
		} // a broken array is rejected as a whole, as one record
	}
	for _, text := range texts {
		more, skipped, err := traccarMessages(text, Defaults{Fleet: d.Fleet}, most-len(messages))
		if err != nil {
			return nil, 0, err
		}
		messages, ignored = append(messages, more...), ignored+skipped
	}
	for i := range messages {
		messages[i].Index = i
	}
	return messages, ignored, nil
}

type traccarEnvelope struct {
	DeviceID json.RawMessage `json:"device_id,omitempty"`
	FleetID  json.RawMessage `json:"fleet_id,omitempty"`
	Location json.RawMessage `json:"location"`
}

type traccarLocation struct {
	Timestamp json.RawMessage `json:"timestamp"`
	Coords    *struct {
		Latitude  json.RawMessage `json:"latitude"`
		Longitude json.RawMessage `json:"longitude"`
		Accuracy  json.RawMessage `json:"accuracy"` // meters
		Speed     json.RawMessage `json:"speed"`    // m/s
		Heading   json.RawMessage `json:"heading"`  // degrees
	} `json:"coords"`
	Battery struct {
		Level json.RawMessage `json:"level"` // 0 to 1
	} `json:"battery"`
}

// maxEnvelope bounds the names that each location of a batch repeats.
const maxEnvelope = 1 << 10

// traccarMessages reads a message with one location, or with several when the library sends in batches.
func traccarMessages(text []byte, d Defaults, most int) (messages []Message, ignored int, err error) {
	malformed := func(remedy string) []Message {
		return []Message{{Raw: truncate(string(text)), Rejection: telemetry.Reject(telemetry.Malformed, "", string(text), remedy)}}
	}
	if most < 1 {
		return nil, 0, ErrTooMany
	}
	var e traccarEnvelope
	if err := json.Unmarshal(text, &e); err != nil {
		return malformed("send valid JSON: " + err.Error()), 0, nil
	}
	if len(e.Location) == 0 || e.Location[0] != '{' && e.Location[0] != '[' {
		return malformed("send location and device_id; records in our own format go to /v1/telemetry"), 0, nil
	}
	if e.Location[0] == '{' {
		messages, ignored = appendTraccar(messages, e, string(text), d)
		return messages, ignored, nil
	}
	if len(e.DeviceID)+len(e.FleetID) > maxEnvelope {
		return malformed("send a device_id and fleet_id that are names"), 0, nil
	}
	var locations []json.RawMessage
	_ = json.Unmarshal(e.Location, &locations) // valid JSON, as part of the message
	for _, e.Location = range locations {
		one, _ := json.Marshal(e) // parts of valid JSON
		var skipped int
		messages, skipped = appendTraccar(messages, e, string(one), d)
		if ignored += skipped; len(messages) > most {
			return nil, 0, ErrTooMany
		}
	}
	return messages, ignored, nil
}

func appendTraccar(messages []Message, e traccarEnvelope, raw string, d Defaults) (_ []Message, ignored int) {
	m := Message{Raw: truncate(raw)}
	var l traccarLocation
	if err := json.Unmarshal(e.Location, &l); err != nil {
		m.Rejection = telemetry.Reject(telemetry.Malformed, "location", string(e.Location), "send the coordinates in the format of the protocol: "+err.Error())
		return append(messages, m), 0
	}
	if l.Coords == nil {
		return messages, 1
	}
	p := position{kmh: metersPerSecond, percent: 100}
	m.Rejection = readTexts(
		jsonField{"device_id", e.DeviceID, &p.device}, jsonField{"fleet_id", e.FleetID, &p.fleet}, jsonField{"timestamp", l.Timestamp, &p.time},
		jsonField{"latitude", l.Coords.Latitude, &p.lat}, jsonField{"longitude", l.Coords.Longitude, &p.lon},
		jsonField{"speed", l.Coords.Speed, &p.speed}, jsonField{"heading", l.Coords.Heading, &p.heading},
		jsonField{"accuracy", l.Coords.Accuracy, &p.accuracy}, jsonField{"level", l.Battery.Level, &p.battery},
	)
	if blank(e.FleetID) {
		p.fleet = d.Fleet
		m.Raw = truncate(d.addToJSON(raw))
	}
	if m.Rejection == nil {
		m.Record, m.Rejection = p.record()
	}
	return append(messages, m), 0
}
