// Package protocol decodes what devices and gateways send over HTTP: records in our own format, and the protocols of
// OsmAnd, Traccar Client and OwnTracks. It does no I/O.
package protocol

import (
	"encoding/json"
	"errors"
	"net/url"
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
	Record    telemetry.Record     `cbor:"2,keyasint"` // of text that could not be decoded: the names, as far as they are known
	Rejection *telemetry.Rejection `cbor:"3,keyasint,omitempty"`
	Raw       string               `cbor:"4,keyasint"` // as it arrived; when it could not be decoded, with the names of the request; when it is too large, its start
}

// Decoded reports whether the message has a record, which may have been rejected later.
func (m *Message) Decoded() bool { return m.Record.TimeMs != 0 }

// Defaults are what a record takes from its request when it does not say so itself: the fleet of the token, the device
// that a header names, the time of arrival.
type Defaults struct {
	Fleet, Device string
	Time          time.Time
}

// newMessage makes the message of a record that arrived as raw, or of its rejection. Of a text above the maximum size it keeps an
// excerpt, whatever the protocol.
func newMessage(raw string, r telemetry.Record, rejection *telemetry.Rejection, d Defaults) Message {
	if len(raw) > telemetry.MaxJSON {
		if rejection == nil || rejection.Reason != telemetry.TooLarge {
			rejection = telemetry.RejectTooLarge([]byte(raw))
		}
		return Message{Rejection: rejection, Raw: strings.Clone(raw[:telemetry.MaxExcerpt])}
	}
	if rejection != nil {
		r = telemetry.Record{DeviceID: r.DeviceID, FleetID: r.FleetID}
		if rejection.Field != "" { // else the text is not an object
			raw = d.addTo(raw)
		}
	}
	return Message{Record: r, Rejection: rejection, Raw: raw}
}

// addTo adds the names that the raw text of a rejected record lacks, an object or parameters, so that its dead letter has
// them.
func (d Defaults) addTo(raw string) string {
	type names struct {
		Fleet  any `json:"fleet_id,omitempty"`
		Device any `json:"device_id,omitempty"`
	}
	fields, isObject := strings.CutPrefix(strings.TrimSpace(raw), "{")
	var has, lacks names
	_ = json.Unmarshal([]byte(raw), &has) // parameters lack both
	if has.Fleet == nil && d.Fleet != "" {
		lacks.Fleet = d.Fleet
	}
	if has.Device == nil && d.Device != "" {
		lacks.Device = d.Device
	}
	added, _ := json.Marshal(lacks) // texts can always be encoded
	switch {
	case !isObject && d.Fleet != "":
		return raw + "&fleet_id=" + url.QueryEscape(d.Fleet)
	case isObject && len(added) > len("{}") && strings.HasPrefix(strings.TrimSpace(fields), `"`):
		return strings.TrimSuffix(string(added), "}") + "," + fields
	default:
		return raw
	}
}

// BoundName bounds a name from an address or a header, because each record of the request repeats it. A name that is too
// long stays invalid.
func BoundName(name string) string {
	if len(name) > telemetry.MaxNameLen {
		name = strings.ToValidUTF8(name[:telemetry.MaxNameLen], "") + "…"
	}
	return name
}
