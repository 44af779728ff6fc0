package plugin

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// maxSuggestions is the longest list of suggestions for an editor.
const maxSuggestions = 10_000

// alertTypesRange is the time range in which alert types are suggested.
const alertTypesRange = 30 * 24 * time.Hour

// suggestionPaths maps resources that suggest values to the kinds of variables.
var suggestionPaths = map[string]string{
	"fleets": query.VariableFleets, "devices": query.VariableDevices, "zones": query.VariableZones, "alert-types": query.VariableAlertTypes,
}

// filterKeys are the columns that ad hoc filters work on.
var filterKeys = []string{"device_id", "fleet_id", "status", "zone", "severity", "alert_type", "speed_kmh", "battery_pct", "temp_c", "age_s"}

// filterKinds maps the text columns of ad hoc filters to the kinds of variables that list their values.
var filterKinds = map[string]string{
	"device_id": query.VariableDevices, "fleet_id": query.VariableFleets, "status": query.VariableStates, "zone": query.VariableZones,
	"severity": query.VariableSeverities, "alert_type": query.VariableAlertTypes,
}

// routes serves the resources of editors and map layers.
func (d *Datasource) routes() http.Handler {
	mux := http.NewServeMux()
	for path, read := range d.resources() {
		mux.HandleFunc("GET /"+path, d.resource(read))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, map[string]string{"message": "no resource " + r.Method + " " + r.URL.Path})
	})
	return mux
}

// resources returns what reads each resource, by path.
func (d *Datasource) resources() map[string]func(context.Context, *http.Request) (any, error) {
	all := map[string]func(context.Context, *http.Request) (any, error){
		"schema": func(ctx context.Context, _ *http.Request) (any, error) {
			tables, err := d.reader.Schema(ctx)
			return map[string]any{"keyspace": d.settings.Cluster.Keyspace, "tables": tables}, err
		},
		"filter-keys": func(context.Context, *http.Request) (any, error) { return options(filterKeys), nil },
		"filter-values": func(ctx context.Context, r *http.Request) (any, error) {
			kind, ok := filterKinds[r.URL.Query().Get("key")]
			if !ok {
				return options(nil), nil // a number column has no list of values
			}
			values, err := d.suggestions(ctx, r, kind)
			return options(values), err
		},
		"geofences": func(ctx context.Context, r *http.Request) (any, error) {
			q := &query.Geofences{Common: query.Common{Type: query.TypeGeofences, Fleets: fleetParams(r)}}
			if err := query.Validate(q, false); err != nil {
				return nil, err
			}
			geofences, err := d.executor.Geofences(ctx, q)
			return frames.GeoJSON(geofences), err
		},
	}
	for path, kind := range suggestionPaths {
		all[path] = func(ctx context.Context, r *http.Request) (any, error) { return d.suggestions(ctx, r, kind) }
	}
	return all
}

// resource serves what read returns as JSON.
func (d *Datasource) resource(read func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), d.settings.QueryTimeout)
		defer cancel()
		body, err := any(nil), d.settingsErr
		if err == nil {
			var account *memory.Account
			ctx, account, err = d.openAccount(ctx)
			defer closeAfter(r.Context(), account)
		}
		if err == nil {
			body, err = read(ctx, r)
		}
		if err != nil {
			response, _ := d.errorResponse(r.Context(), err)
			writeJSON(w, int(response.Status), map[string]string{"message": response.Error.Error()})
			return
		}
		writeJSON(w, http.StatusOK, body)
	}
}

// suggestions returns the values of a variable: of the fleets in the request, with its prefix, and at most its limit.
func (d *Datasource) suggestions(ctx context.Context, r *http.Request, kind string) ([]string, error) {
	params := r.URL.Query()
	limit := maxSuggestions
	if text := params.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, query.Invalid("limit %q: give a number above 0", text)
		}
		limit = min(n, maxSuggestions)
	}
	now := d.now()
	q := &query.Variable{Kind: kind, Common: query.Common{Type: query.TypeVariable, From: now.Add(-alertTypesRange), To: now, Fleets: fleetParams(r)}}
	if err := query.Validate(q, false); err != nil {
		return nil, err
	}
	values, err := d.executor.Values(ctx, q)
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

// fleetParams returns the fleets that a request names; a map layer may leave the parameter empty.
func fleetParams(r *http.Request) []string {
	return slices.DeleteFunc(r.URL.Query()["fleet"], func(s string) bool { return s == "" })
}

// options converts values to the form in which Grafana expects the options of ad hoc filters.
func options(values []string) []map[string]string {
	list := make([]map[string]string, len(values))
	for i, v := range values {
		list[i] = map[string]string{"text": v}
	}
	return list
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
