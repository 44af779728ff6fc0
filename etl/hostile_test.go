package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv/rivals"
)

// What a fleet reads depends on what it has written alone. Fleet b writes everything it can, also for the devices of fleet a: what
// a reads is the same as without b, and what b reads is the same for another a.
func TestFleetsReadWhatTheyWroteAlone(t *testing.T) {
	seed, now := rand.Uint64(), time.Now().UTC().Truncate(time.Second)
	t.Log("seed", seed)
	s := newSite(t)
	world := func(seedOfA uint64, withB bool) (a, b []string) {
		return s.empty(t).twoFleets(seed, seedOfA, withB, now)
	}
	a, b := world(1, true)
	require.Contains(t, strings.Join(a, ""), `"alert_type"`)
	require.Contains(t, strings.Join(b, ""), `"alert_type"`)
	aAlone, _ := world(1, false)
	rivals.RequireSame(t, aAlone, a)
	_, bWithAnother := world(2, true)
	rivals.RequireSame(t, b, bWithAnother)
}

// twoFleets returns what the fleets read after they have sent: b the same whatever the seed of a, beside its attacks.
func (s *site) twoFleets(seed, seedOfA uint64, withB bool, now time.Time) (a, b []string) {
	rules := filepath.Join(s.dir, "rules.yml")
	require.NoError(s.t, os.WriteFile(rules, []byte("defaults:\n  device_offline: {enabled: false}\n"), 0o600)) // it depends on the clock
	start := func() *service {
		v, _ := s.hostile("ETL_ALERT_RULES_FILE=" + rules)
		require.Eventually(s.t, func() bool { return strings.HasPrefix(s.ask("a", http.MethodGet, "/v1/fleets", ""), "200") }, time.Minute, 100*time.Millisecond, v.said())
		return v
	}
	v := start()
	ofA, ofB, attacks := rand.New(rand.NewPCG(seed, seedOfA)), rand.New(rand.NewPCG(seed, 100)), rand.New(rand.NewPCG(seed, 200))
	const rounds, perRound = 6, 20
	for round := range rounds {
		from := now.Add(time.Duration(round*perRound-200) * time.Minute)
		records := drives(ofA, from, perRound, "a-0", "a-1")
		own := drives(ofB, from, perRound, "b-0", "b-1")
		s.ask("a", http.MethodPost, "/v1/telemetry", records)
		s.drained(v)
		if !withB {
			continue
		}
		for range 2 { // the second time they are duplicates
			b = append(b, s.ask("b", http.MethodPost, "/v1/telemetry?verbose=1", own))
		}
		s.attack(attacks, records)
		s.drained(v)
	}
	v.stop() // everything is derived
	v = start()
	defer v.stop()
	for _, fleet := range []string{"a", "b"} { // the second of them finds the other's responses in the cache
		read := s.readEverything(fleet, now)
		if fleet == "a" {
			a = append(a, read...)
		} else {
			b = append(b, read...)
		}
	}
	return a, b
}

func (s *site) drained(v *service) {
	require.Eventually(s.t, func() bool { return v.metric("fleet_etl_spool_entries") == 0 }, time.Minute, 20*time.Millisecond, v.said())
}

// drives returns a record per minute of each device, one per line.
func drives(rng *rand.Rand, from time.Time, n int, devices ...string) string {
	var lines strings.Builder
	for _, device := range devices {
		lat, battery := 50+rng.Float64(), 3+rng.IntN(60)
		for i := range n {
			lat += rng.Float64() / 100
			fmt.Fprintf(&lines, `{"device_id":%q,"timestamp":%q,"lat":%.6f,"lon":8,"speed_kmh":%d,"battery_pct":%d}`+"\n",
				device, from.Add(time.Duration(i)*time.Minute).Format(time.RFC3339), lat, rng.IntN(180), battery)
		}
	}
	return lines.String()
}

// attack sends as fleet b what the owner of these records has not sent.
func (s *site) attack(rng *rand.Rand, records string) {
	var lines strings.Builder
	for line := range strings.Lines(records) {
		var r map[string]any
		require.NoError(s.t, json.Unmarshal([]byte(line), &r))
		at, err := time.Parse(time.RFC3339, r["timestamp"].(string))
		require.NoError(s.t, err)
		switch rng.IntN(6) {
		case 0: // the same instant, another place
			delete(r, "speed_kmh")
		case 1:
			at = time.Now().Add(4 * time.Minute)
		case 2:
			at = at.Add(-time.Duration(rng.IntN(60_000)) * time.Millisecond)
		case 3:
			at = at.Add(-time.Duration(rng.IntN(28*24)) * time.Hour)
		case 4:
			r["fleet_id"] = "a"
		case 5:
			r["zone"] = strings.Repeat("z", rng.IntN(20_000))
		}
		r["timestamp"], r["lat"], r["battery_pct"] = at.Format(time.RFC3339Nano), rng.Float64(), rng.IntN(100)
		text, err := json.Marshal(r)
		require.NoError(s.t, err)
		lines.Write(text)
		lines.WriteString("\n")
	}
	lines.WriteString("{\n")
	s.ask("b", http.MethodPost, "/v1/telemetry", lines.String())
	s.ask("b", http.MethodGet, fmt.Sprintf("/v1/osmand?id=a-0&lat=1&lon=1&timestamp=%d", time.Now().Unix()), "")
	s.ask("b", http.MethodPost, "/v1/owntracks?u=a-0", fmt.Sprintf(`{"_type":"location","lat":1,"lon":2,"tst":%d}`, time.Now().Unix()))
	for _, alert := range s.alerts("a") {
		require.Contains(s.t, s.ask("b", http.MethodPost, "/v1/alerts/"+alert+"/resolve", ""), "403")
	}
}

// alerts returns the IDs of a fleet's alerts.
func (s *site) alerts(fleet string) (ids []string) {
	_, body, _ := strings.Cut(s.ask(fleet, http.MethodGet, "/v1/fleets/"+fleet+"/alerts", ""), "\n")
	var list struct{ Items []struct{ ID string } }
	require.NoError(s.t, json.Unmarshal([]byte(body), &list), body)
	for _, item := range list.Items {
		ids = append(ids, item.ID)
	}
	return ids
}

// readEverything returns the responses to all that a fleet may read. It fails for a path of the OpenAPI document that is unknown
// here.
func (s *site) readEverything(fleet string, now time.Time) (all []string) {
	span := "from=" + now.Add(-29*24*time.Hour).Format(time.RFC3339) + "&to=" + now.Add(time.Hour).Format(time.RFC3339)
	variants := []string{"", "limit=3", "format=csv"}
	spans := []string{span, span + "&limit=7", span + "&format=csv"}
	alert := func(fleet, device string) string {
		text, _ := json.Marshal([]string{fleet, "HIGH", fmt.Sprint(now.UnixMilli()), device, "speed_limit"}) // texts can always be encoded
		return base64.RawURLEncoding.EncodeToString(text)
	}
	requests := map[string][]string{
		"/v1/telemetry": nil, "/v1/owntracks": nil, "/v1/osmand": nil, "/v1/osmand/{token}": nil, "/": nil, "/v1/openapi.json": nil, // they read nothing
		"/v1/fleets":                   variants,
		"/v1/fleets/{fleet}/devices":   variants,
		"/v1/fleets/{fleet}/latest":    variants,
		"/v1/devices/{device}/track":   append(spans, span+"&format=gpx"),
		"/v1/fleets/{fleet}/alerts":    append(spans, span+"&severity=HIGH"),
		"/v1/fleets/{fleet}/analytics": spans,
		"/v1/alerts/{alert}/resolve":   {""},
	}
	var document struct{ Paths map[string]any }
	_, text, _ := strings.Cut(s.ask(fleet, http.MethodGet, "/v1/openapi.json", ""), "\n")
	require.NoError(s.t, json.Unmarshal([]byte(text), &document))
	paths := make([]string, 0, len(document.Paths))
	for path := range document.Paths {
		require.Contains(s.t, requests, path, "add what a fleet may read there")
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		method := http.MethodGet
		ids := []string{"a", "b", "c"}
		switch {
		case strings.Contains(path, "{device}"):
			ids = []string{"a-0", "a-1", "b-0", "b-1", "unknown"}
		case strings.Contains(path, "{alert}"):
			method, ids = http.MethodPost, []string{alert("a", "a-0"), alert("b", "a-0"), alert("b", "b-0"), "unknown"}
		case !strings.Contains(path, "{"):
			ids = []string{""}
		}
		for _, id := range ids {
			for _, parameters := range requests[path] {
				address := strings.NewReplacer("{fleet}", id, "{device}", id, "{alert}", id).Replace(path) + "?" + parameters
				for range 10 {
					response := s.ask(fleet, method, address, "")
					all = append(all, address+" "+response)
					_, next, more := strings.Cut(response, "Link:[<")
					if !more {
						break
					}
					address, _, _ = strings.Cut(next, ">")
				}
			}
		}
	}
	return all
}

// ask returns the response to a request of a fleet: its status and headers, and behind a line end its body.
func (s *site) ask(fleet, method, path, body string) string {
	request, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+apiAddress+path, strings.NewReader(body))
	require.NoError(s.t, err)
	request.Header.Set("Authorization", "Bearer "+strings.Repeat(fleet, 32))
	response, err := client.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	for _, header := range []string{"Date", "X-Request-Id"} {
		response.Header.Del(header)
	}
	return fmt.Sprintf("%d %v\n%s", response.StatusCode, response.Header, text)
}
