// Package live implements the live channels of fleet maps: their names, and the reads that all viewers of a fleet share.
package live

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// The path of a channel is fleet/FLEET or fleet/FLEET/FILTER, both in base64 without padding. It contains everything
// that a stream depends on, because a stream outlives its query and may run on another Grafana server.

// maxChannelBytes is the longest channel name that Grafana accepts.
const maxChannelBytes = 160

// filter is the part of a query that a stream applies, with short keys because a channel name is short.
type filter struct {
	vehicles
	Filters []query.Filter `json:"f,omitempty"`
	Limit   int            `json:"l,omitempty"`
}

// vehicles is query.VehicleFilter with short keys.
type vehicles struct {
	Devices       []string `json:"d,omitempty"`
	States        []string `json:"s,omitempty"`
	Zones         []string `json:"z,omitempty"`
	MinSpeedKmh   *float64 `json:"a,omitempty"`
	MaxSpeedKmh   *float64 `json:"b,omitempty"`
	MinBatteryPct *float64 `json:"c,omitempty"`
	MaxBatteryPct *float64 `json:"e,omitempty"`
}

// Channel names the channel of a query on one fleet. ok is false if the filter of the query does not fit into a name.
func Channel(datasourceUID, fleet string, q *query.Latest) (channel string, ok bool) {
	path := "fleet/" + base64.RawURLEncoding.EncodeToString([]byte(fleet))
	text, err := json.Marshal(filter{vehicles(q.VehicleFilter), q.Filters, q.Limit})
	if err != nil {
		return "", false
	}
	if string(text) != "{}" {
		path += "/" + base64.RawURLEncoding.EncodeToString(text)
	}
	channel = "ds/" + datasourceUID + "/" + path
	return channel, len(channel) <= maxChannelBytes
}

// ParsePath parses the path of a channel, which may come from anyone, into the validated query of one fleet.
func ParsePath(path string) (*query.Latest, error) {
	parts := strings.Split(path, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "fleet" {
		return nil, fmt.Errorf("stream %q: use fleet/FLEET or fleet/FLEET/FILTER", path)
	}
	fleet, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("stream %q: the fleet is not base64: %w", path, err)
	}
	var f filter
	if len(parts) == 3 {
		text, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil {
			return nil, fmt.Errorf("stream %q: the filter is not base64: %w", path, err)
		}
		if err := json.Unmarshal(text, &f); err != nil {
			return nil, fmt.Errorf("stream %q: the filter is not JSON: %w", path, err)
		}
	}
	q := &query.Latest{
		Common:        query.Common{Type: query.TypeLatest, Fleets: []string{string(fleet)}, Filters: f.Filters, Limit: f.Limit},
		VehicleFilter: query.VehicleFilter(f.vehicles),
	}
	if err := query.Validate(q, false); err != nil {
		return nil, fmt.Errorf("stream %q: %w", path, err)
	}
	return q, nil
}
