package protocol

import (
	"cmp"
	"encoding/json"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Traccar decodes the JSON of Traccar Client 9, the format of its background location library: one message or an array of
// messages. More records than most are ErrTooMany. ignored counts the messages without coordinates, which report
// something else than a position.
func Traccar(body []byte, d Defaults, most int) (messages []Message, ignored int, err error) {
	texts, err := splitMessages(body, most)
	if err != nil {
		return nil, 0, err
	}
	for _, text := range texts {
		more, skipped, err := traccarMessages(text, d, most)
		messages, ignored = append(messages, more...), ignored+skipped
		if err == nil && len(messages)+ignored > most {
			err = ErrTooMany
		}
		if err != nil {
			return nil, 0, err
		}
	}
	for i := range messages {
		messages[i].Index = i
	}
	return messages, ignored, nil
}

// maxEnvelope bounds the names that each location of a batch repeats.
const maxEnvelope = 1 << 10

// traccarMessages reads a message with one location, or with several when the library sends in batches.
func traccarMessages(text []byte, d Defaults, most int) (messages []Message, ignored int, err error) {
	malformed := func(remedy string) ([]Message, int, error) {
		rejection := telemetry.Reject(telemetry.Malformed, "", string(text), remedy)
		return []Message{newMessage(string(text), telemetry.Record{}, rejection, d)}, 0, nil
	}
	add := func(o object, raw []byte) {
		if m, isPosition := traccarMessage(o, string(raw), d); isPosition {
			messages = append(messages, m)
		} else {
			ignored++
		}
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return malformed("send valid JSON: " + err.Error())
	}
	location, device, fleet := o["location"], o["device_id"], o["fleet_id"]
	switch {
	case len(location) > 0 && location[0] == '{':
		add(o, text)
	case len(location) == 0 || location[0] != '[':
		return malformed("send location and device_id; records in our own format go to /v1/telemetry")
	case len(device)+len(fleet) > maxEnvelope:
		return malformed("send a device_id and fleet_id that are names")
	default:
		locations, err := splitArray(location, most)
		if err != nil {
			return nil, 0, err
		}
		for _, location := range locations {
			one := object{"device_id": device, "fleet_id": fleet, "location": location}
			raw, _ := json.Marshal(one) // parts of valid JSON
			add(one, raw)
		}
	}
	return messages, ignored, nil
}

// traccarMessage reads a message with one location. isPosition is false when it has no coordinates.
func traccarMessage(o object, raw string, d Defaults) (m Message, isPosition bool) {
	var l struct {
		Timestamp json.RawMessage `json:"timestamp"`
		Coords    object          `json:"coords"`
		Battery   object          `json:"battery"`
	}
	if err := json.Unmarshal(o["location"], &l); err != nil {
		rejection := telemetry.Reject(telemetry.Malformed, "location", string(o["location"]), "send the coordinates in the format of the protocol: "+err.Error())
		return newMessage(raw, telemetry.Record{}, rejection, d), true
	}
	if l.Coords == nil {
		return Message{}, false
	}
	p := position{kmh: metersPerSecond, percent: 100}
	rejection := cmp.Or(
		o.read(field{"device_id", &p.device}, field{"fleet_id", &p.fleet}),
		object{"timestamp": l.Timestamp}.read(field{"timestamp", &p.time}),
		l.Coords.read(field{"latitude", &p.lat}, field{"longitude", &p.lon}, field{"speed", &p.speed}, field{"heading", &p.heading}, field{"accuracy", &p.accuracy}),
		l.Battery.read(field{"level", &p.battery}),
	)
	return p.message(raw, d, rejection), true
}
