package query

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// The path of a live channel is fleet/FLEET or fleet/FLEET/FILTER, both in base64 without padding. It contains everything
// that a stream depends on, because a stream outlives its query and may run on another Grafana server.

// maxChannelBytes is the longest channel name that Grafana accepts.
const maxChannelBytes = 160

// channelFilter is the part of a query that a stream applies, with short keys because a channel name is short.
type channelFilter struct {
	channelVehicles
	Filters []Filter `json:"f,omitempty"`
	Limit   int      `json:"l,omitempty"`
}

// channelVehicles is VehicleFilter with short keys.
type channelVehicles struct {
	Devices       []string `json:"d,omitempty"`
	States        []string `json:"s,omitempty"`
	Zones         []string `json:"z,omitempty"`
	MinSpeedKmh   *float64 `json:"a,omitempty"`
	MaxSpeedKmh   *float64 `json:"b,omitempty"`
	MinBatteryPct *float64 `json:"c,omitempty"`
	MaxBatteryPct *float64 `json:"e,omitempty"`
}

// Channel names the live channel of a query on one fleet. ok is false if the filter of the query does not fit into a name.
func Channel(datasourceUID, fleet string, q *Latest) (channel string, ok bool) {
	path := "fleet/" + base64.RawURLEncoding.EncodeToString([]byte(fleet))
	text, err := json.Marshal(channelFilter{channelVehicles(q.VehicleFilter), q.Filters, q.Limit})
	if err != nil {
		return "", false
	}
	if string(text) != "{}" {
		path += "/" + base64.RawURLEncoding.EncodeToString(text)
	}
	channel = "ds/" + datasourceUID + "/" + path
	return channel, len(channel) <= maxChannelBytes
}

// ParseChannel parses the path of a live channel, which may come from anyone, into the validated query of one fleet.
func ParseChannel(path string) (*Latest, error) {
	parts := strings.Split(path, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "fleet" {
		return nil, fmt.Errorf("stream %q: use fleet/FLEET or fleet/FLEET/FILTER", path)
	}
	fleet, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("stream %q: the fleet is not base64: %w", path, err)
	}
	var f channelFilter
	if len(parts) == 3 {
		text, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			return nil, fmt.Errorf("stream %q: the filter is not base64: %w", path, err)
		}
		if err := json.Unmarshal(text, &f); err != nil {
			return nil, fmt.Errorf("stream %q: the filter is not JSON: %w", path, err)
		}
	}
	q := &Latest{
		Common:        Common{Type: TypeLatest, Fleets: []string{string(fleet)}, Filters: f.Filters, Limit: f.Limit},
		VehicleFilter: VehicleFilter(f.channelVehicles),
	}
	if err := Validate(q, false); err != nil {
		return nil, fmt.Errorf("stream %q: %w", path, err)
	}
	return q, nil
}
