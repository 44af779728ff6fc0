package generator

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The readers here say what a pipeline with the clock at now makes of a line: the record, or the reason of its rejection.

func readCSV(line string, now time.Time) (telemetry.Record, telemetry.Reason) {
	cells, err := csv.NewReader(strings.NewReader(line)).Read()
	if err != nil || len(cells) != len(fields) {
		return telemetry.Record{}, telemetry.Malformed
	}
	texts := map[string]string{}
	for i, field := range fields {
		texts[field] = cells[i]
	}
	return readFields(texts, now)
}

func readJSON(line string, now time.Time) (telemetry.Record, telemetry.Reason) {
	var members map[string]any
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&members); err != nil {
		return telemetry.Record{}, telemetry.Malformed
	}
	texts := map[string]string{}
	for field, value := range members {
		switch v := value.(type) {
		case string:
			texts[field] = v
		case json.Number:
			texts[field] = v.String()
		default:
			return telemetry.Record{}, telemetry.Malformed
		}
	}
	return readFields(texts, now)
}

func readFields(texts map[string]string, now time.Time) (r telemetry.Record, reason telemetry.Reason) {
	for _, field := range telemetry.RequiredFields {
		if texts[field] == "" {
			return r, telemetry.MissingField
		}
	}
	for field, text := range texts {
		if err := r.SetText(field, text, telemetry.TimeFormat{}); err != nil {
			var rejection *telemetry.Rejection
			errors.As(err, &rejection)
			return r, rejection.Reason
		}
	}
	return r, verdict(&r, now)
}

// verdict is the reason to refuse a record that was read, or empty.
func verdict(r *telemetry.Record, now time.Time) telemetry.Reason {
	outside := func(o telemetry.Optional[float64], lo, hi float64) bool {
		return o.Valid && !(o.Value >= lo && o.Value <= hi)
	}
	switch {
	case r.DeviceID == "" || r.FleetID == "":
		return telemetry.MissingField
	case !telemetry.ValidName(r.DeviceID) || !telemetry.ValidName(r.FleetID):
		return telemetry.BadID
	case r.Time().After(now.Add(telemetry.MaxAhead)):
		return telemetry.Future
	case !r.Time().After(now.Add(-telemetry.Retention)):
		return telemetry.TooOld
	case !(math.Abs(r.Lat) <= 90):
		return telemetry.LatRange
	case !(math.Abs(r.Lon) <= 180):
		return telemetry.LonRange
	case r.Lat == 0 && r.Lon == 0:
		return telemetry.ZeroPosition
	case outside(r.SpeedKmh, 0, telemetry.MaxSpeedKmh):
		return telemetry.SpeedRange
	case outside(r.HeadingDeg, 0, 360):
		return telemetry.HeadingRange
	case r.BatteryPct.Valid && (r.BatteryPct.Value < 0 || r.BatteryPct.Value > 100):
		return telemetry.BatteryRange
	case outside(r.TempC, telemetry.MinTempC, telemetry.MaxTempC):
		return telemetry.TempRange
	}
	return ""
}
