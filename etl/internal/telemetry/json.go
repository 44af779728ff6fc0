package telemetry

import (
	"bytes"
	"encoding/json"
	"strings"
)

// MaxJSON is the maximum size of a JSON record, or of one message of another protocol, in bytes.
const MaxJSON = 16 << 10

// jsonRecord has the fields as raw JSON, so that quoted numbers are accepted and errors show the original value.
type jsonRecord struct {
	DeviceID  json.RawMessage `json:"device_id"`
	FleetID   json.RawMessage `json:"fleet_id"`
	Timestamp json.RawMessage `json:"timestamp"`
	Lat       json.RawMessage `json:"lat"`
	Lon       json.RawMessage `json:"lon"`
	Speed     json.RawMessage `json:"speed_kmh"`
	Heading   json.RawMessage `json:"heading_deg"`
	Battery   json.RawMessage `json:"battery_pct"`
	Temp      json.RawMessage `json:"temp_c"`
	Zone      json.RawMessage `json:"zone"`
	Accuracy  json.RawMessage `json:"accuracy_m"`
}

// values returns the fields in the order of Fields.
func (j *jsonRecord) values() [11]json.RawMessage {
	return [...]json.RawMessage{
		j.DeviceID, j.FleetID, j.Timestamp, j.Lat, j.Lon, j.Speed, j.Heading, j.Battery, j.Temp, j.Zone, j.Accuracy,
	}
}

// ParseJSON parses a JSON object with the names of Fields. Numbers may be quoted, timestamps have the zero TimeFormat, a null
// is absent, and unknown fields are ignored. fleet is the fleet of a record without one; it may be empty. The Rejection
// reports a missing or malformed field. ParseJSON does not check bounds.
func ParseJSON(text []byte, fleet string) (Record, *Rejection) {
	var r Record
	if len(text) > MaxJSON {
		return r, RejectTooLarge(text)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || text[0] != '{' {
		return r, Reject(Malformed, "", string(text), "send a JSON object")
	}
	var j jsonRecord
	if err := json.Unmarshal(text, &j); err != nil {
		return r, Reject(Malformed, "", string(text), "send valid JSON: "+err.Error())
	}
	for i, value := range j.values() {
		field := Fields[i]
		s, rejection := JSONText(field, value)
		if rejection != nil {
			return r, rejection
		}
		if field == FieldFleetID && strings.TrimSpace(s) == "" {
			s = fleet
		}
		if i < len(RequiredFields) && strings.TrimSpace(s) == "" {
			return r, Reject(MissingField, field, "", "give it a value")
		}
		if err := r.SetText(field, s, TimeFormat{}); err != nil {
			return r, err.(*Rejection) //nolint:errorlint // SetText returns no other error
		}
	}
	return r, nil
}

// JSONFields returns the values of a JSON object by the names of Fields, as ParseJSON sees them: names in any case, and the
// last of several equal names. It ignores unknown fields.
func JSONFields(object string) (map[string]json.RawMessage, error) {
	var j jsonRecord
	if err := json.Unmarshal([]byte(object), &j); err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	for i, value := range j.values() {
		if value != nil {
			fields[Fields[i]] = value
		}
	}
	return fields, nil
}

// JSONText returns the text of a JSON string or number, and an empty text for null and for an absent value.
func JSONText(field string, value json.RawMessage) (string, *Rejection) {
	switch {
	case len(value) == 0 || value[0] == 'n':
		return "", nil
	case value[0] == '"':
		var s string
		if err := json.Unmarshal(value, &s); err != nil {
			return "", Reject(Malformed, field, string(value), "give a string")
		}
		return s, nil
	case value[0] == '-' || value[0] >= '0' && value[0] <= '9':
		return string(value), nil
	default:
		return "", Reject(Malformed, field, string(value), "give a string or a number")
	}
}
