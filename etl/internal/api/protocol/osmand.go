package protocol

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// OsmAnd decodes the parameters of one position (https://www.traccar.org/osmand).
func OsmAnd(query string, d Defaults) Message {
	p, rejection := parseQuery(query)
	if p.fleet != "" {
		d.Fleet = ""
	}
	return p.message(query, d, rejection)
}

// WithoutToken removes the token from parameters, so that it is stored nowhere. Its name may be escaped.
func WithoutToken(query string) string {
	parameters := slices.DeleteFunc(strings.Split(query, "&"), func(p string) bool {
		name, _, _ := strings.Cut(p, "=")
		plain, err := url.QueryUnescape(name)
		return p == "" || err == nil && plain == "token"
	})
	return strings.Join(parameters, "&")
}

// parseQuery reads parameters. It skips parameters that we have no use for, such as altitude, hdop and charge.
func parseQuery(raw string) (position, *telemetry.Rejection) {
	p := position{kmh: knots, percent: 1}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return p, telemetry.Reject(telemetry.Malformed, "", raw, "send parameters in URL encoding: "+err.Error())
	}
	get := func(names ...string) string {
		for _, name := range names {
			for _, v := range values[name] {
				if v = strings.TrimSpace(v); v != "" {
					return v
				}
			}
		}
		return ""
	}
	p.device, p.fleet = get("id", "deviceid", "device_id"), get("fleet_id")
	p.time, p.lat, p.lon = repairTime(get("timestamp")), get("lat"), get("lon")
	p.speed, p.heading, p.battery, p.accuracy = get("speed"), get("bearing", "heading"), get("batt"), get("accuracy")
	if location := get("location"); location != "" {
		lat, lon, found := strings.Cut(location, ",")
		if !found {
			return p, telemetry.Reject(telemetry.Malformed, "location", location, "give latitude and longitude with a comma between")
		}
		p.lat, p.lon = lat, lon
	}
	switch valid := strings.ToLower(get("valid")); valid {
	case "", "1", "true":
		return p, nil
	default:
		return p, telemetry.Reject(telemetry.ZeroPosition, "valid", valid, "send no position while the receiver has no fix")
	}
}

// repairTime repairs two things that devices do to ISO 8601: a + that was not escaped, and an offset without colon.
func repairTime(s string) string {
	if len(s) < 20 || s[4] != '-' || s[10] != 'T' {
		return s
	}
	s = strings.Replace(s, " ", "+", 1)
	if t, err := time.Parse("2006-01-02T15:04:05Z0700", s); err == nil {
		return t.Format(time.RFC3339Nano)
	}
	return s
}
