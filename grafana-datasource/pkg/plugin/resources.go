package plugin

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// routes are what editors and maps ask for beside queries.
func (d *Datasource) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /schema", d.resource(func(ctx context.Context, _ *http.Request) (any, error) {
		tables, err := d.reader.schema(ctx, &cost{})
		return map[string]any{"keyspace": d.settings.cluster.Keyspace, "tables": tables}, err
	}))
	for path, variable := range map[string]string{"fleets": "fleets", "devices": "devices", "zones": "zones", "alert-types": "alert_types"} {
		mux.HandleFunc("GET /"+path, d.resource(func(ctx context.Context, r *http.Request) (any, error) {
			return d.suggestions(ctx, r, variable)
		}))
	}
	mux.HandleFunc("GET /filter-keys", d.resource(func(context.Context, *http.Request) (any, error) {
		return texts([]string{"device_id", "fleet_id", "status", "zone", "severity", "alert_type", "speed_kmh", "battery_pct", "temp_c", "age_s"}), nil
	}))
	mux.HandleFunc("GET /filter-values", d.resource(func(ctx context.Context, r *http.Request) (any, error) {
		variable, ok := map[string]string{
			"device_id": "devices", "fleet_id": "fleets", "status": "states", "zone": "zones", "severity": "severities", "alert_type": "alert_types",
		}[r.URL.Query().Get("key")]
		if !ok {
			return texts(nil), nil // a number: nothing to choose from
		}
		values, err := d.suggestions(ctx, r, variable)
		return texts(values), err
	}))
	mux.HandleFunc("GET /geofences", d.resource(d.geofenceCollection))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, map[string]string{"message": "no resource " + r.Method + " " + r.URL.Path})
	})
	return mux
}

func (d *Datasource) resource(read func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := d.wrong
		var v any
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), d.settings.queryTimeout)
			defer cancel()
			v, err = read(ctx, r)
		}
		if err != nil {
			response, _ := d.failure(r.Context(), err)
			writeJSON(w, statusOf(response), map[string]string{"message": response.Error.Error()})
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

// maxSuggestions is the longest list of choices that an editor gets.
const maxSuggestions = 10_000

// suggestions are values of a kind: of the fleets that are named, beginning with a prefix, at most limit.
func (d *Datasource) suggestions(ctx context.Context, r *http.Request, variable string) ([]string, error) {
	params := r.URL.Query()
	limit := maxSuggestions
	if text := params.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, invalid("limit %q: give a number above 0", text)
		}
		limit = min(n, maxSuggestions)
	}
	now := d.now()
	q := &query{queryType: typeVariable, from: now.Add(-30 * 24 * time.Hour), to: now, model: model{Fleets: params["fleet"], Variable: variable}}
	for _, fleet := range q.Fleets {
		if !validName(fleet) {
			return nil, invalid("fleet %q: %s", fleet, nameRule)
		}
	}
	values, err := d.values(ctx, q, &cost{}, &answer{})
	if err != nil {
		return nil, err
	}
	kept := []string{}
	for _, v := range values {
		if strings.HasPrefix(v, params.Get("prefix")) && len(kept) < limit {
			kept = append(kept, v)
		}
	}
	return kept, nil
}

func texts(values []string) []map[string]string {
	list := make([]map[string]string, len(values))
	for i, v := range values {
		list[i] = map[string]string{"text": v}
	}
	return list
}

// feature is a GeoJSON feature (RFC 7946).
type feature struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Geometry   any            `json:"geometry"`
	Properties map[string]any `json:"properties"`
}

// geofenceCollection gives the zones of fleets as GeoJSON, for a layer of a map. A circle becomes a polygon, since
// GeoJSON has no circles.
func (d *Datasource) geofenceCollection(ctx context.Context, r *http.Request) (any, error) {
	q := &query{queryType: typeGeofences, model: model{Fleets: slices.DeleteFunc(r.URL.Query()["fleet"], func(s string) bool { return s == "" })}}
	zones, _, err := d.zonesOf(ctx, q, &cost{}, &answer{})
	if err != nil {
		return nil, err
	}
	features := []feature{}
	for _, z := range zones {
		shape := outline(&z)
		if shape == nil {
			continue
		}
		properties := map[string]any{"fleet_id": z.FleetID, "name": z.Name, "kind": z.Kind}
		if z.SpeedLimitKmh != nil {
			properties["speed_limit_kmh"] = *z.SpeedLimitKmh
		}
		features = append(features, feature{"Feature", z.FleetID + "/" + z.Name, shape, properties})
	}
	return map[string]any{"type": "FeatureCollection", "features": features}, nil
}

// circleCorners is how many corners stand for a circle.
const circleCorners = 64

// metresPerDegree of latitude, on a sphere of the earth's mean radius, 6,371,008.8 m.
const metresPerDegree = 6_371_008.8 * math.Pi / 180

func outline(z *cassandra.Geofence) any {
	if z.RadiusM == nil {
		if lat, _ := centre(z.Geometry); lat == nil {
			return nil
		}
		return json.RawMessage(z.Geometry)
	}
	lat, lon := centre(z.Geometry)
	if lat == nil {
		return nil
	}
	ring := make([][2]float64, circleCorners+1)
	for i := range ring {
		angle := 2 * math.Pi * float64(i%circleCorners) / circleCorners
		dy := *z.RadiusM * math.Sin(angle) / metresPerDegree
		dx := *z.RadiusM * math.Cos(angle) / (metresPerDegree * max(math.Cos(*lat*math.Pi/180), 1e-6))
		ring[i] = [2]float64{*lon + dx, *lat + dy}
	}
	return map[string]any{"type": "Polygon", "coordinates": [][][2]float64{ring}}
}
