// Package protocol decodes what devices and gateways send over HTTP: records in our own format, and the protocols of
// OsmAnd, Traccar Client and OwnTracks. It does no I/O.
package protocol

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The protocols.
const (
	NameTelemetry = "telemetry"
	NameOsmAnd    = "osmand"
	NameTraccar   = "traccar"
	NameOwnTracks = "owntracks"
)

// Names lists the protocols.
var Names = []string{NameTelemetry, NameOsmAnd, NameTraccar, NameOwnTracks}

// ErrTooMany means that a request has more records than allowed.
var ErrTooMany = errors.New("too many records")

// Message is one record of a request, or the reason why it was rejected. The numbers in the tags are its format in the spool.
type Message struct {
	Index     int                  `cbor:"1,keyasint"` // in the request, from 0
	Record    telemetry.Record     `cbor:"2,keyasint"`
	Rejection *telemetry.Rejection `cbor:"3,keyasint,omitempty"`
	Raw       string               `cbor:"4,keyasint"` // as it arrived, with what it took from the request
}

// Defaults are what a record takes from its request when it does not say so itself: the fleet of the token, the device
// that a header names, the time of arrival. They are added to the raw text, so that the raw text alone gives the record
// again.
type Defaults struct {
	Fleet, Device string
	Time          time.Time
}

// BoundName bounds a name from an address or a header, because each record of the request repeats it. A name that is too
// long stays invalid.
func BoundName(name string) string {
	if len(name) > telemetry.MaxNameLen {
		name = strings.ToValidUTF8(name[:telemetry.MaxNameLen], "") + "…"
	}
	return name
}

// ParseRaw reads the raw text of a message, in any of the protocols.
func ParseRaw(raw string) (telemetry.Record, *telemetry.Rejection) {
	text := strings.TrimSpace(raw)
	if !strings.HasPrefix(text, "{") && strings.Contains(text, "=") {
		p, rejection := parseQuery(text)
		if rejection != nil {
			return telemetry.Record{}, rejection
		}
		return p.record()
	}
	var kind struct {
		Type     json.RawMessage `json:"_type"`
		Location json.RawMessage `json:"location"`
	}
	if json.Unmarshal([]byte(text), &kind) == nil {
		switch {
		case len(kind.Type) > 0:
			m := ownTracksMessage([]byte(text), Defaults{})
			return m.Record, m.Rejection
		case len(kind.Location) > 0:
			messages, _, err := traccarMessages([]byte(text), Defaults{}, 1)
			if err == nil && len(messages) == 1 {
				return messages[0].Record, messages[0].Rejection
			}
		}
	}
	return telemetry.ParseJSON([]byte(text), "")
}

// truncate bounds the raw text of a record that is far too long to be valid.
func truncate(raw string) string { return raw[:min(len(raw), telemetry.MaxRawLen)] }

// addToJSON adds the defaults to the text of an object. At the end of the object they override an empty value of the same
// name.
func (d Defaults) addToJSON(raw string) string {
	object, isObject := strings.CutSuffix(strings.TrimSpace(raw), "}")
	if !isObject || d.Fleet == "" && d.Device == "" {
		return raw
	}
	added := strings.TrimRight(object, " \t\r\n")
	for _, field := range [...]struct{ name, value string }{{telemetry.FieldFleetID, d.Fleet}, {telemetry.FieldDeviceID, d.Device}} {
		if field.value == "" {
			continue
		}
		if added != "{" {
			added += ","
		}
		text, _ := json.Marshal(field.value) // a string can always be encoded
		added += `"` + field.name + `":` + string(text)
	}
	return added + "}"
}

// jsonField is a field of a message, and where its text goes.
type jsonField struct {
	name  string
	value json.RawMessage
	to    *string
}

// readTexts reads the texts of several fields. It stops at the first one that is neither a text nor a number.
func readTexts(fields ...jsonField) *telemetry.Rejection {
	for _, f := range fields {
		text, rejection := telemetry.JSONText(f.name, f.value)
		if rejection != nil {
			return rejection
		}
		*f.to = text
	}
	return nil
}

// blank reports whether a value is absent, null or a blank text.
func blank(value json.RawMessage) bool {
	text, rejection := telemetry.JSONText("", value)
	return rejection == nil && strings.TrimSpace(text) == ""
}
