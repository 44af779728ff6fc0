package geofence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Parse reads the zones of a GeoJSON FeatureCollection (RFC 7946: longitude first, WGS 84). A feature is a Polygon or a
// MultiPolygon, both with holes, or a Point with the property radius_m for a circle. Properties:
//
//	name             required, unique in a fleet
//	fleet            required: a fleet's name, a list of names, or "*" for every fleet
//	kind             what the zone is to the fleet
//	radius_m         of a circle, metres
//	speed_limit_kmh  km/h
//	dwell_s          how long a vehicle may stay, whole seconds
//	alerts           a list of "enter", "exit": what is worth an alert; nothing where it is absent
//
// A property that is null is absent; others are left alone. The error tells every problem of the text, a line each,
// that begins with its origin.
func Parse(origin string, text []byte) ([]Zone, error) {
	features, err := split(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	var p problems
	var zones, named []Zone
	for i, f := range features {
		r := reader{problems: &p, where: fmt.Sprintf("%s: feature %d", origin, i+1)}
		before := len(p.errs)
		z, fleets := r.feature(f)
		z.where = r.where
		for _, z.Fleet = range fleets {
			if z.Name != "" {
				named = append(named, z)
			}
			if len(p.errs) == before {
				zones = append(zones, z)
			}
		}
	}
	p.errs = append(p.errs, clashes(named)...)
	if len(zones) > MaxZones {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", origin, tooMany(len(zones))))
	}
	if err := p.join(); err != nil {
		return nil, err
	}
	return zones, nil
}

// split takes a collection into its features.
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
		return nil, fmt.Errorf("type is %s, not a FeatureCollection: put the zones as features into one", show(shown))
	}
	var features []json.RawMessage
	if err := json.Unmarshal(orNull(doc.Features), &features); err != nil {
		return nil, fmt.Errorf("features is %s, not a list: give a list of Feature objects", show(doc.Features))
	}
	switch {
	case len(features) == 0:
		return nil, errors.New("features has no zone: add one, or leave the file out")
	case len(features) > MaxZones:
		return nil, tooMany(len(features))
	}
	return features, nil
}

// problems is what is wrong with zones, each with its place.
type problems struct{ errs []error }

// maxTold is how many problems are told at once; nobody reads on.
const maxTold = 100

func (p *problems) join() error {
	if more := len(p.errs) - maxTold; more > 0 {
		p.errs = append(p.errs[:maxTold], fmt.Errorf("and %d problems more", more))
	}
	return errors.Join(p.errs...)
}

// reader reads one feature, and collects what is wrong with it.
type reader struct {
	*problems
	where      string // of the feature; with its name once that is known
	properties map[string]json.RawMessage
}

func (r *reader) add(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: "+format, append([]any{r.where}, args...)...))
}

func (r *reader) feature(text []byte) (z Zone, fleets []string) {
	var f struct {
		Type       any
		Geometry   json.RawMessage
		Properties json.RawMessage
	}
	if err := json.Unmarshal(text, &f); err != nil || f.Type != "Feature" {
		r.add("it is %s, not a Feature: give an object of type Feature with geometry and properties", show(text))
		return z, nil
	}
	if json.Unmarshal(orNull(f.Properties), &r.properties) != nil {
		r.add("properties is %s, not an object: give one with fleet and name", show(f.Properties))
		return z, nil
	}
	z.Name = r.name()
	fleets = r.fleets()
	z.Kind = r.kind()
	z.SpeedLimitKmh = r.number("speed_limit_kmh", "km/h", MaxSpeedLimitKmh)
	z.DwellS = r.dwell()
	z.OnEnter, z.OnExit = r.alerts()
	r.geometry(&z, f.Geometry)
	return z, fleets
}

// property is the value of a property; nil where it is absent or null.
func (r *reader) property(field string) json.RawMessage {
	if raw := r.properties[field]; string(raw) != "null" {
		return raw
	}
	return nil
}

const nameRule = "1 to 128 characters of A-Za-z0-9._:-"

func (r *reader) name() string {
	raw := r.property("name")
	if raw == nil {
		r.add("name is missing: give the zone one of %s", nameRule)
		return ""
	}
	var name string
	if json.Unmarshal(raw, &name) != nil || !telemetry.ValidName(name) {
		r.add("name is %s: give a text of %s", show(raw), nameRule)
		return ""
	}
	r.where += " " + strconv.Quote(name)
	return name
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
			r.add("fleet is %s, and \"*\" is every fleet: leave out the others", show(raw))
			return nil
		case fleet != AllFleets && !telemetry.ValidName(fleet):
			r.add("fleet is %q: a fleet's name is %s", fleet, nameRule)
			return nil
		case seen[fleet]:
			r.add("fleet has %q twice: leave one out", fleet)
			return nil
		}
		seen[fleet] = true
	}
	return fleets
}

func (r *reader) kind() (kind string) {
	raw := r.property("kind")
	if raw == nil {
		return ""
	}
	if json.Unmarshal(raw, &kind) != nil || len(kind) > MaxKindLen {
		r.add("kind is %s: give a text of at most %d bytes", show(raw), MaxKindLen)
	}
	return kind
}

// number reads a property that is above 0.
func (r *reader) number(field, unit string, most float64) (v telemetry.Optional[float64]) {
	raw := r.property(field)
	if raw == nil {
		return v
	}
	var number float64
	if json.Unmarshal(raw, &number) != nil || !(number > 0 && number <= most) {
		r.add("%s is %s: give a number of %s above 0, at most %.0f", field, show(raw), unit, most)
		return v
	}
	return telemetry.Some(number)
}

func (r *reader) dwell() (v telemetry.Optional[int32]) {
	raw := r.property("dwell_s")
	if raw == nil {
		return v
	}
	var seconds float64
	if json.Unmarshal(raw, &seconds) != nil || !(seconds > 0 && seconds <= math.MaxInt32) || seconds != math.Trunc(seconds) {
		r.add("dwell_s is %s: give a whole number of seconds above 0, at most %d", show(raw), math.MaxInt32)
		return v
	}
	return telemetry.Some(int32(seconds))
}

func (r *reader) alerts() (enter, exit bool) {
	raw := r.property("alerts")
	if raw == nil {
		return false, false
	}
	var alerts []string
	wrong := json.Unmarshal(raw, &alerts) != nil
	for _, alert := range alerts {
		switch alert {
		case "enter":
			enter = true
		case "exit":
			exit = true
		default:
			wrong = true
		}
	}
	if wrong {
		r.add(`alerts is %s: give a list of "enter" and "exit", or leave it out`, show(raw))
	}
	return enter, exit
}

func orNull(raw json.RawMessage) json.RawMessage {
	if raw == nil {
		return json.RawMessage("null")
	}
	return raw
}

// show is a value as it stands in the file, or the beginning of a long one.
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
