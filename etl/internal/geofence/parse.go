package geofence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Parse reads the geofences of a GeoJSON FeatureCollection (RFC 7946: longitude first, WGS 84). A feature is a Polygon or a
// MultiPolygon, both with holes, or a Point with the property radius_m for a circle. Properties:
//
//	name             required, unique in a fleet
//	fleet            required: a fleet's name, a list of names, or "*" for every fleet
//	kind             the fleet's category
//	radius_m         radius of a circle, meters
//	speed_limit_kmh  km/h
//	dwell_s          how long a vehicle may stay, whole seconds
//	alerts           a list of "enter", "exit": the events that raise an alert; none if absent
//
// A null property is absent; unknown properties are ignored. The error lists all problems, one line each, which starts
// with origin. A collection without features is an error.
func Parse(origin string, text []byte) ([]Geofence, error) {
	features, err := split(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	var p problems
	var geofences, named []Geofence
	for i, f := range features {
		r := reader{problems: &p, source: fmt.Sprintf("%s: feature %d", origin, i+1)}
		before := len(p.errs)
		g, fleets := r.feature(f)
		g.source = r.source
		for _, g.Fleet = range fleets {
			if g.Name != "" {
				named = append(named, g)
			}
			if len(p.errs) == before {
				geofences = append(geofences, g)
			}
		}
	}
	p.errs = append(p.errs, nameConflicts(named)...)
	if len(geofences) > MaxGeofences {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", origin, tooMany(len(geofences))))
	}
	if err := p.join(); err != nil {
		return nil, err
	}
	return geofences, nil
}

// split returns the features of a collection.
func split(text []byte) ([]json.RawMessage, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var doc struct {
		Type     any
		Features json.RawMessage
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			before := text[:max(0, min(int(syntax.Offset)-1, len(text)))]
			return nil, fmt.Errorf("line %d column %d: bad JSON: %w", 1+bytes.Count(before, []byte("\n")),
				len(before)-bytes.LastIndexByte(before, '\n'), syntax)
		}
		return nil, fmt.Errorf("text is %s, not a GeoJSON object: give a FeatureCollection", show(text))
	}
	if doc.Type != "FeatureCollection" {
		shown, _ := json.Marshal(doc.Type)
		return nil, fmt.Errorf("type is %s, not a FeatureCollection: put the geofences into one as features", show(shown))
	}
	var features []json.RawMessage
	if err := json.Unmarshal(orNull(doc.Features), &features); err != nil {
		return nil, fmt.Errorf("features is %s, not a list: give a list of Feature objects", show(doc.Features))
	}
	switch {
	case len(features) == 0:
		return nil, errors.New("features is empty: add a geofence, or remove the file")
	case len(features) > MaxGeofences:
		return nil, tooMany(len(features))
	}
	return features, nil
}

// problems collects errors.
type problems struct{ errs []error }

// maxReported bounds the length of an error.
const maxReported = 100

func (p *problems) join() error {
	if more := len(p.errs) - maxReported; more > 0 {
		p.errs = append(p.errs[:maxReported], fmt.Errorf("and %d more problems", more))
	}
	return errors.Join(p.errs...)
}

// reader reads one feature and collects its problems.
type reader struct {
	*problems
	source     string // file and number of the feature, and its name once that is known
	properties map[string]json.RawMessage
}

func (r *reader) add(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: "+format, append([]any{r.source}, args...)...))
}

func (r *reader) feature(text []byte) (g Geofence, fleets []string) {
	var f struct {
		Type       any
		Geometry   json.RawMessage
		Properties json.RawMessage
	}
	if err := json.Unmarshal(text, &f); err != nil || f.Type != "Feature" {
		r.add("value is %s, not a Feature: give an object of type Feature with geometry and properties", show(text))
		return g, nil
	}
	if json.Unmarshal(orNull(f.Properties), &r.properties) != nil {
		r.add("properties is %s, not an object: give one with fleet and name", show(f.Properties))
		return g, nil
	}
	g.Name = r.name()
	fleets = r.fleets()
	g.Kind = read(r, "kind", fmt.Sprintf("give a text of at most %d bytes", MaxKindLen),
		func(kind string) bool { return len(kind) <= MaxKindLen }).Value
	g.SpeedLimitKmh = r.number("speed_limit_kmh", "km/h", MaxSpeedLimitKmh)
	dwell := read(r, "dwell_s", fmt.Sprintf("give a whole number of seconds above 0, at most %d", math.MaxInt32),
		func(seconds float64) bool {
			return seconds > 0 && seconds <= math.MaxInt32 && seconds == math.Trunc(seconds)
		})
	g.DwellS = telemetry.Optional[int32]{Value: int32(dwell.Value), Valid: dwell.Valid}
	alerts := read(r, "alerts", `give a list of "enter" and "exit", or remove it`, func(alerts []string) bool {
		return !slices.ContainsFunc(alerts, func(alert string) bool { return alert != "enter" && alert != "exit" })
	}).Value
	g.OnEnter, g.OnExit = slices.Contains(alerts, "enter"), slices.Contains(alerts, "exit")
	r.geometry(&g, f.Geometry)
	return g, fleets
}

// property returns the value of a property, or nil if it is absent or null.
func (r *reader) property(field string) json.RawMessage {
	if raw := r.properties[field]; string(raw) != "null" {
		return raw
	}
	return nil
}

const nameRule = "1 to 128 characters of A-Za-z0-9._:-"

// read reads an optional property, which must be valid.
func read[T any](r *reader, field, remedy string, valid func(T) bool) (v telemetry.Optional[T]) {
	raw := r.property(field)
	if raw == nil {
		return v
	}
	if json.Unmarshal(raw, &v.Value) != nil || !valid(v.Value) {
		r.add("%s is %s: %s", field, show(raw), remedy)
		return telemetry.Optional[T]{}
	}
	v.Valid = true
	return v
}

// number reads an optional property above 0.
func (r *reader) number(field, unit string, most float64) telemetry.Optional[float64] {
	return read(r, field, fmt.Sprintf("give a number of %s above 0, at most %.0f", unit, most),
		func(v float64) bool { return v > 0 && v <= most })
}

func (r *reader) name() string {
	if r.property("name") == nil {
		r.add("name is missing: give a name of %s", nameRule)
	}
	name := read(r, "name", "give a text of "+nameRule, telemetry.ValidName)
	if name.Valid {
		r.source += " " + strconv.Quote(name.Value)
	}
	return name.Value
}

func (r *reader) fleets() (fleets []string) {
	raw := r.property("fleet")
	if raw == nil {
		r.add("fleet is missing: give a fleet's name, a list of names, or \"*\" for every fleet")
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		fleets = []string{one}
	} else if json.Unmarshal(raw, &fleets) != nil || len(fleets) == 0 {
		r.add("fleet is %s: give a fleet's name, a list of names, or \"*\" for every fleet", show(raw))
		return nil
	}
	seen := make(map[string]bool, len(fleets))
	for _, fleet := range fleets {
		switch {
		case fleet == AllFleets && len(fleets) > 1:
			r.add("fleet is %s, and \"*\" is every fleet: remove the others", show(raw))
			return nil
		case fleet != AllFleets && !telemetry.ValidName(fleet):
			r.add("fleet is %q: a fleet's name is %s", fleet, nameRule)
			return nil
		case seen[fleet]:
			r.add("fleet has %q twice: remove one", fleet)
			return nil
		}
		seen[fleet] = true
	}
	return fleets
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

// show formats a value for an error, or the beginning of a long one.
func show(raw []byte) string {
	var b bytes.Buffer
	if len(raw) == 0 {
		return "missing"
	}
	if json.Compact(&b, raw) != nil {
		return strconv.Quote(string(raw[:min(len(raw), 60)]))
	}
	if b.Len() > 60 {
		return string(bytes.ToValidUTF8(b.Bytes()[:60], nil)) + "…"
	}
	return b.String()
}
