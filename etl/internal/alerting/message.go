package alerting

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// message says what an alert is about in words: how far it went, for how long once it has ended, and where it was
// raised.
func message(o *standing) string {
	lasted, in := "", ""
	if o.EndedMs > o.StartedMs {
		lasted = ", for " + span(o.EndedMs-o.StartedMs)
	}
	if o.Zone != "" {
		in = ", in " + o.Zone
	}
	peak, limit := number(o.Peak), number(o.Threshold)
	switch o.Type {
	case telemetry.SpeedLimit:
		return peak + " km/h where " + number(o.Base) + " are allowed" + lasted + in
	case telemetry.BatteryLow:
		if o.Peak < o.Threshold {
			return "battery at " + peak + " %, below " + limit + " %" + lasted + in
		}
		return "battery down to " + peak + " %" + lasted + in
	case telemetry.Temperature:
		switch {
		case o.Below && o.Peak < o.Threshold:
			return "temperature " + peak + " °C, below " + limit + " °C" + lasted + in
		case o.Below:
			return "temperature down to " + peak + " °C" + lasted + in
		case o.Peak > o.Threshold:
			return "temperature " + peak + " °C, above " + limit + " °C" + lasted + in
		}
		return "temperature up to " + peak + " °C" + lasted + in
	case telemetry.GeofenceEnter:
		return "entered " + o.Zone
	case telemetry.GeofenceExit:
		return "left " + o.Zone
	case telemetry.GeofenceDwell:
		return fmt.Sprintf("in %s for %s where %s are allowed", o.Zone, span(ms(o.Peak)), span(ms(o.Threshold)))
	case telemetry.DeviceOffline:
		layout := "15:04 MST"
		if ms(o.Peak) >= (12 * time.Hour).Milliseconds() {
			layout = "2 January 15:04 MST" // the hour alone could be that of another day
		}
		return fmt.Sprintf("silent since %s (%s)%s", time.UnixMilli(o.StartedMs).UTC().Format(layout), span(ms(o.Peak)), in)
	case telemetry.DeviceStuck:
		return fmt.Sprintf("has not moved for %s though it reports %s km/h or more%s", span(ms(o.Peak)), number(o.Base), in)
	}
	return ""
}

func ms(s float64) int64 { return int64(math.Round(s * 1000)) }

// number is a value with one decimal at most.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// span is a duration in its two greatest units.
func span(ms int64) string {
	units := [...]struct {
		name string
		s    int64
	}{{"d", 86_400}, {"h", 3600}, {"min", 60}, {"s", 1}}
	s := (ms + 500) / 1000
	for i, u := range units {
		n := s / u.s
		if n == 0 && u.s > 1 {
			continue
		}
		text := fmt.Sprintf("%d %s", n, u.name)
		if i+1 < len(units) {
			if rest := s % u.s / units[i+1].s; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return ""
}
