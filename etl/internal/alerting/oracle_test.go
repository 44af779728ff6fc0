package alerting

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// story is all fixes of a device in one fleet, from which the oracle tells its alerts. It looks at each type by itself and
// at all fixes at once, back and forth, where the engine sees one after the other.
type story struct {
	fixes []telemetry.Record
	set   *settings
	zones circles
	endMs int64 // up to here the silence after the last fix is known
	ended bool  // there the device went to another fleet
	steps []telemetry.AlertEvent
}

const never = -1 << 62

// tell gives the steps of every type, in the order of telemetry.AlertTypes.
func (x *story) tell() []telemetry.AlertEvent {
	x.threshold(telemetry.SpeedLimit, &x.set.speed)
	x.threshold(telemetry.BatteryLow, &x.set.battery)
	x.threshold(telemetry.Temperature, &x.set.temperature)
	x.turns()
	x.silence()
	x.stuck()
	return x.steps
}

func (x *story) t(i int) int64  { return x.fixes[i].TimeMs }
func (x *story) gap(i int) bool { return x.t(i)-x.t(i-1) > x.set.maxGapMs } // before fix i

func (x *story) step(a telemetry.Alert, how telemetry.Transition) {
	a.DeviceID, a.FleetID = x.fixes[0].DeviceID, x.fixes[0].FleetID
	event := telemetry.AlertEvent{Alert: a, Transition: how}
	if how == telemetry.AlertEscalated {
		event.From = x.steps[len(x.steps)-1].Severity
	}
	x.steps = append(x.steps, event)
}

// resolve ends an alert at fix i; there may be no such fix.
func (x *story) resolve(a telemetry.Alert, i int) {
	switch {
	case i < len(x.fixes):
		a.EndedMs = x.t(i)
	case x.ended:
		a.EndedMs = x.endMs
	default:
		return
	}
	x.step(a, telemetry.AlertResolved)
}

// around is the zones that contain a fix, the smallest first.
func (x *story) around(i int) (all []telemetry.Place) {
	for _, z := range x.zones {
		if p := z.place(x.fixes[i].Lat, x.fixes[i].Lon); p.InsideM >= 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b telemetry.Place) int { return int(math.Copysign(1, a.AreaM2-b.AreaM2)) })
	return all
}

func (x *story) raisedAt(a *telemetry.Alert, i int) {
	a.OpenedMs, a.Lat, a.Lon = x.t(i), x.fixes[i].Lat, x.fixes[i].Lon
	if in := x.around(i); a.Zone == "" && len(in) > 0 {
		a.Zone = in[0].Zone
	}
}

func (x *story) threshold(of telemetry.AlertType, rule *thresholdRule) {
	if !rule.enabled {
		return
	}
	n := len(x.fixes)
	value := make([]float64, n)
	has := make([]bool, n)
	base := make([]float64, n)
	for i := range x.fixes {
		r := &x.fixes[i]
		switch of {
		case telemetry.SpeedLimit:
			value[i], has[i], base[i] = r.SpeedKmh.Value, r.SpeedKmh.Valid, x.set.speedLimitKmh
			in := x.around(i)
			for _, p := range slices.Backward(in) {
				if p.SpeedLimitKmh.Valid {
					base[i] = p.SpeedLimitKmh.Value
				}
			}
		case telemetry.BatteryLow:
			value[i], has[i] = float64(r.BatteryPct.Value), r.BatteryPct.Valid
		case telemetry.Temperature:
			value[i], has[i] = r.TempC.Value, r.TempC.Valid
		}
	}
	severity := func(i int, low bool) (best telemetry.Severity, limit float64) {
		for k, s := range telemetry.Severities {
			l := rule.high[k]
			passed := value[i] >= l.Value
			if of == telemetry.SpeedLimit {
				passed = value[i] > base[i]+l.Value
			}
			if low {
				l = rule.low[k]
				passed = value[i] <= l.Value
			}
			if l.Valid && passed && s.Graver(best) {
				best, limit = s, base[i]+l.Value
			}
		}
		return best, limit
	}
	side := func(i int) string {
		for _, low := range []bool{false, true} {
			if s, _ := severity(i, low); has[i] && s != "" {
				return fmt.Sprint(low)
			}
		}
		return ""
	}
	well := func(i int, low bool) bool {
		if !has[i] {
			return false
		}
		if s, _ := severity(i, low); s != "" {
			return false
		}
		for k := range telemetry.Severities { // beyond the hysteresis of every level
			if low && rule.low[k].Valid && value[i] < rule.low[k].Value+rule.hysteresis ||
				!low && rule.high[k].Valid && value[i] > base[i]+rule.high[k].Value-rule.hysteresis {
				return false
			}
		}
		return true
	}
	// since is the first fix of the stretch that ends with fix i, reaches back to fix from at most, and is not broken.
	since := func(i, from int, holds func(int) bool) int {
		first := i
		for k := i - 1; k >= from && !x.gap(k+1) && (!has[k] || holds(k)); k-- {
			if has[k] {
				first = k
			}
		}
		return first
	}
	furthest := func(from, to int, low bool) int {
		best := from
		for i := from; i <= to; i++ {
			if has[i] && (low && value[i] < value[best] || !low && value[i]-base[i] > value[best]-base[best]) {
				best = i
			}
		}
		return best
	}

	from, rest := 0, int64(never)
	for j := 0; j < n; j++ {
		s := side(j)
		if s == "" || x.t(j) < rest {
			continue
		}
		first := since(j, from, func(k int) bool { return side(k) == s })
		if x.t(j)-x.t(first) < rule.forMs {
			continue
		}
		low := s == "true"
		a := telemetry.Alert{Type: of, StartedMs: x.t(first)}
		x.raisedAt(&a, j)
		tell := func(to int) {
			peak := furthest(first, to, low)
			a.Peak = value[peak]
			a.Severity, a.Threshold = severity(peak, low)
		}
		tell(j)
		x.step(a, telemetry.AlertOpened)
		m := j + 1
		for ; m < n; m++ {
			before := a.Severity
			if tell(m); a.Severity != before {
				x.step(a, telemetry.AlertEscalated)
			}
			if well(m, low) && x.t(m)-x.t(since(m, j, func(k int) bool { return well(k, low) })) >= rule.clearForMs {
				break
			}
		}
		x.resolve(a, m)
		if m == n {
			return
		}
		from, rest = m, x.t(m)+rule.coolDownMs
		j = m - 1
	}
}

// visit is that a device is inside of a zone: from the fix that confirmed it to the one that confirmed the opposite.
type visit struct {
	zone        telemetry.Place
	from, to    int
	since, left int // the first of the confirming fixes
	first       bool
}

func (x *story) visits() (all []visit) {
	n, need := len(x.fixes), x.set.fixes
	for _, z := range x.zones {
		depth := make([]float64, n)
		clear := make([]float64, n)
		for i, r := range x.fixes {
			depth[i] = z.place(r.Lat, r.Lon).InsideM
			clear[i] = min(z.radius/2, min(250, max(x.set.marginM, r.AccuracyM.Value)))
		}
		row := func(i, after int, is func(int) bool) bool {
			for k := i - need + 1; k <= i; k++ {
				if k <= after || !is(k) {
					return false
				}
			}
			return true
		}
		var v *visit
		last := 0
		if depth[0] >= 0 {
			v = &visit{zone: z.place(0, 0), first: true}
		}
		for i := 1; i < n; i++ {
			switch {
			case v == nil && row(i, last, func(k int) bool { return depth[k] >= clear[k] }):
				v = &visit{zone: z.place(0, 0), from: i, since: i - need + 1}
				last = i
			case v != nil && row(i, last, func(k int) bool { return depth[k] <= -clear[k] }):
				v.to, v.left = i, i-need+1
				all = append(all, *v)
				v, last = nil, i
			}
		}
		if v != nil {
			v.to = n
			all = append(all, *v)
		}
	}
	slices.SortFunc(all, func(a, b visit) int { return int(math.Copysign(1, a.zone.AreaM2-b.zone.AreaM2)) })
	return all
}

func (x *story) turns() {
	n := len(x.fixes)
	visits := x.visits()
	for _, of := range []telemetry.AlertType{telemetry.GeofenceEnter, telemetry.GeofenceExit} {
		rule, enter := &x.set.exit, of == telemetry.GeofenceEnter
		if enter {
			rule = &x.set.enter
		}
		if !rule.enabled {
			continue
		}
		type event struct {
			zones []string
			since int
		}
		events := make([]event, n+1)
		turnsBack := make([]map[string]bool, n+1)
		for i := range turnsBack {
			turnsBack[i] = map[string]bool{}
		}
		for _, v := range visits {
			in, out, since, asks := v.from, v.to, v.since, v.zone.OnEnter
			if !enter {
				in, out, since, asks = out, in, v.left, v.zone.OnExit
			}
			if (!v.first || !enter) && in < n && (asks || rule.zones[v.zone.Zone] || rule.zones["*"]) {
				events[in].zones, events[in].since = append(events[in].zones, v.zone.Zone), since
			}
			if !v.first || enter {
				turnsBack[out][v.zone.Zone] = true
			}
		}
		for i, e := range events {
			if e.zones == nil {
				continue
			}
			a := telemetry.Alert{Type: of, Severity: rule.severity, StartedMs: x.t(e.since), Zone: strings.Join(e.zones, ", ")}
			x.raisedAt(&a, i)
			x.step(a, telemetry.AlertOpened)
			j := i + 1
			for ; j < n && events[j].zones == nil && x.t(j) < x.t(i)+rule.holdMs; j++ {
				if slices.ContainsFunc(e.zones, func(z string) bool { return turnsBack[j][z] }) {
					break
				}
			}
			x.resolve(a, j)
		}
	}

	rule := &x.set.dwell
	if !rule.enabled {
		return
	}
	rest := int64(never)
	for i := 0; i < n; i++ {
		for _, v := range visits {
			limit, named := rule.zones[v.zone.Zone]
			if !named && v.zone.DwellS.Valid {
				limit, named = int64(v.zone.DwellS.Value)*1000, true
			}
			if !named {
				limit, named = rule.zones["*"]
			}
			inside := func(i int) bool {
				return slices.ContainsFunc(x.around(i), func(p telemetry.Place) bool { return p.Zone == v.zone.Zone })
			}
			if !named || i < v.from || i >= v.to || x.t(i)-x.t(v.since) < limit || x.t(i) < rest || !inside(i) {
				continue
			}
			a := telemetry.Alert{Type: telemetry.GeofenceDwell, Severity: rule.severity, StartedMs: x.t(v.since), Zone: v.zone.Zone}
			x.raisedAt(&a, i)
			a.Threshold, a.Peak = float64(limit)/1000, float64(x.t(i)-x.t(v.since))/1000
			x.step(a, telemetry.AlertOpened)
			for k := i; k < v.to; k++ {
				if inside(k) {
					a.Peak = float64(x.t(k)-x.t(v.since)) / 1000
				}
			}
			x.resolve(a, v.to)
			if i = v.to; i < n {
				rest = x.t(i) + rule.coolDownMs
			}
			i-- // the fix that ended it may raise another
			break
		}
	}
}

func (x *story) silence() {
	rule, rest := &x.set.offline, int64(never)
	if !rule.enabled {
		return
	}
	for i, r := range x.fixes {
		until := x.endMs
		if i+1 < len(x.fixes) {
			until = x.t(i + 1)
		}
		a := telemetry.Alert{Type: telemetry.DeviceOffline, StartedMs: r.TimeMs, Lat: r.Lat, Lon: r.Lon}
		if in := x.around(i); len(in) > 0 {
			a.Zone = in[0].Zone
		}
		grade := func(ms int64) (s telemetry.Severity, limit float64) {
			for k, l := range rule.after {
				if l.Valid && float64(ms-r.TimeMs) >= l.Value && telemetry.Severities[k].Graver(s) {
					s, limit = telemetry.Severities[k], l.Value/1000
				}
			}
			return s, limit
		}
		for ms := max(r.TimeMs, rest); ms <= until; ms += 1000 { // silences of the rules are whole seconds
			s, limit := grade(ms)
			if !s.Graver(a.Severity) {
				continue
			}
			how := telemetry.AlertEscalated
			if a.OpenedMs == 0 {
				a.OpenedMs, how = ms, telemetry.AlertOpened
			}
			a.Severity, a.Threshold, a.Peak = s, limit, float64(ms-r.TimeMs)/1000
			x.step(a, how)
		}
		if a.OpenedMs != 0 {
			if a.Peak = float64(until-r.TimeMs) / 1000; i+1 < len(x.fixes) {
				rest = until + rule.coolDownMs
			}
			x.resolve(a, i+1)
		}
	}
}

func (x *story) stuck() {
	rule, rest, n := &x.set.stuck, int64(never), len(x.fixes)
	if !rule.enabled {
		return
	}
	slow := func(i int) bool { v := x.fixes[i].SpeedKmh; return v.Valid && v.Value < rule.minSpeedKmh }
	drives := func(i int) bool { return x.fixes[i].SpeedKmh.Valid && !slow(i) }
	for a := 0; a < n; a++ {
		if !drives(a) {
			continue
		}
		moved := func(b int) bool {
			p, q := &x.fixes[a], &x.fixes[b]
			return math.Hypot(p.Lat-q.Lat, p.Lon-q.Lon)*metresPerDegree > rule.radiusM // the tests are on the equator
		}
		var alert *telemetry.Alert
		seen, b := 0, a
		for ; b < n; b++ {
			if b > a && (slow(b) || moved(b) || alert == nil && x.gap(b)) {
				break
			}
			if !drives(b) {
				continue
			}
			seen++
			lasts := x.t(b) - x.t(a)
			if alert == nil && seen >= rule.fixes && lasts >= rule.forMs && x.t(b) >= rest {
				alert = &telemetry.Alert{Type: telemetry.DeviceStuck, Severity: rule.severity, StartedMs: x.t(a), Threshold: float64(rule.forMs) / 1000}
				x.raisedAt(alert, b)
				alert.Peak = float64(lasts) / 1000
				x.step(*alert, telemetry.AlertOpened)
			}
			if alert != nil {
				alert.Peak = float64(lasts) / 1000
			}
		}
		if alert != nil {
			x.resolve(*alert, b)
			if b < n {
				rest = x.t(b) + rule.coolDownMs
			}
		}
		a = b - 1
	}
}

// track is a random way of a device through zones, with jams, gaps, absent values and changes of fleet.
func track(random *rand.Rand, n int) (all []telemetry.Record) {
	t, east, north := 0, random.Float64()*800-400, random.Float64()*800-400
	heading, speed, battery, temp := 0.0, 50.0, 30.0, 5.0
	fleet := "acme"
	still := 0
	for range n {
		switch random.IntN(25) {
		case 0:
			t += 60 + random.IntN(600)
		case 1:
			t += 300 + random.IntN(8000)
		default:
			t += 1 + random.IntN(40)
		}
		if random.IntN(30) == 0 {
			still = random.IntN(25)
		}
		if random.IntN(4) == 0 {
			speed = float64(random.IntN(180))
		}
		if still--; still <= 0 {
			heading += random.NormFloat64()
			way := speed * random.Float64() * 2
			east, north = east+way*math.Cos(heading), north+way*math.Sin(heading)
			if math.Hypot(east, north) > 900 {
				heading = math.Atan2(-north, -east)
			}
		}
		battery = min(100, max(0, battery+random.NormFloat64()*4))
		temp = min(20, max(-10, temp+random.NormFloat64()*1.5))
		if random.IntN(150) == 0 {
			fleet = []string{"acme", "b"}[random.IntN(2)]
		}
		dEast, dNorth := jitter(random, 10)
		r := at(float64(t), east+dEast, inFleet(fleet))
		r.Lat = (north + dNorth) / metresPerDegree
		if random.IntN(5) > 0 {
			kmh(speed)(&r)
		}
		if random.IntN(5) > 0 {
			pct(int32(battery))(&r)
		}
		if random.IntN(5) > 0 {
			degrees(math.Round(temp*2) / 2)(&r)
		}
		if random.IntN(8) == 0 {
			within(float64(random.IntN(120)))(&r)
		}
		all = append(all, r)
	}
	return all
}

// someZones are random zones around the middle, that overlap.
func someZones(random *rand.Rand) (all circles) {
	for i := range random.IntN(6) {
		z := circle{radius: 20 + random.Float64()*600, east: random.NormFloat64() * 400, north: random.NormFloat64() * 400}
		z.Zone, z.OnEnter, z.OnExit = fmt.Sprint("zone-", i), random.IntN(2) == 0, random.IntN(2) == 0
		if random.IntN(2) == 0 {
			z.DwellS = telemetry.Some(int32(random.IntN(900)))
		}
		if random.IntN(2) == 0 {
			z.SpeedLimitKmh = telemetry.Some(float64(20 + random.IntN(100)))
		}
		all = append(all, z)
	}
	return all
}

// someRules is a random file.
func someRules(random *rand.Rand) string {
	s := func(most int) string { return fmt.Sprintf("%ds", random.IntN(most)) }
	common := func() string {
		return fmt.Sprintf("hysteresis: %d, for: %s, clear_for: %s, cool_down: %s", random.IntN(8), s(60), s(60), s(1200)) + flip(random)
	}
	zones := []string{"[]", `["*"]`, "[zone-0]", "[zone-1, zone-2]"}
	lines := []string{
		"max_gap: " + fmt.Sprintf("%ds", 30+random.IntN(400)),
		fmt.Sprintf("geofences: {margin_m: %d, fixes: %d}", random.IntN(60), 1+random.IntN(3)),
		fmt.Sprintf("speed_limit: {limit: %d, levels: {LOW: %d, MEDIUM: 25, HIGH: 50}, %s}", 40+random.IntN(90), random.IntN(20), common()),
		fmt.Sprintf("battery_low: {levels: {LOW: %d, HIGH: 10}, %s}", 20+random.IntN(30), common()),
		fmt.Sprintf("temperature: {high: {LOW: %d, MEDIUM: 12}, low: {LOW: 0, HIGH: -4}, %s}", 5+random.IntN(4), common()),
		fmt.Sprintf("geofence_enter: {zones: %s, hold: %ds%s}", zones[random.IntN(4)], 1+random.IntN(600), flip(random)),
		fmt.Sprintf("geofence_exit: {zones: %s, severity: HIGH, hold: %ds%s}", zones[random.IntN(4)], 1+random.IntN(600), flip(random)),
		fmt.Sprintf(`geofence_dwell: {zones: {zone-1: 3m, "*": %ds}, cool_down: %s%s}`, 60+random.IntN(900), s(1200), flip(random)),
		fmt.Sprintf("device_offline: {after: {LOW: %ds, MEDIUM: 1h, HIGH: 2h}, cool_down: %s%s}", 60+random.IntN(900), s(3000), flip(random)),
		fmt.Sprintf("device_stuck: {min_speed: %d, radius_m: %d, for: %ds, fixes: %d, cool_down: %s%s}", 1+random.IntN(30), 15+random.IntN(20), 1+random.IntN(300), 2+random.IntN(5), s(1200), flip(random)),
	}
	return "defaults:\n  " + strings.Join(lines, "\n  ") + "\nfleets:\n  b:\n    speed_limit: {limit: 70, cool_down: 5m}\n    geofences: {margin_m: 5}\n"
}

// flip switches a rule off at times.
func flip(random *rand.Rand) string {
	if random.IntN(10) == 0 {
		return ", enabled: false"
	}
	return ""
}

// wordless is steps without what the oracle has no words for, by type.
func wordless(steps []telemetry.AlertEvent) map[telemetry.AlertType][]telemetry.AlertEvent {
	by := map[telemetry.AlertType][]telemetry.AlertEvent{}
	for _, x := range steps {
		x.Message = ""
		by[x.Type] = append(by[x.Type], x)
	}
	return by
}

func TestAgainstAnOracle(t *testing.T) {
	rounds, told := 300, map[string]int{}
	for seed := range uint64(rounds) {
		random := rand.New(rand.NewPCG(seed, 7))
		text, zones, all := someRules(random), someZones(random), track(random, 20+random.IntN(200))
		rules := parsed(t, text)
		e := New(rules, zones)
		var s State
		got := apply(e, &s, all...)
		endMs := all[len(all)-1].TimeMs + int64(random.IntN(10_000))*1000
		e.Advance(&s, endMs, func(x telemetry.AlertEvent) { got = append(got, x) })

		var want []telemetry.AlertEvent
		for from := 0; from < len(all); {
			to := from
			for to < len(all) && all[to].FleetID == all[from].FleetID {
				to++
			}
			x := story{fixes: all[from:to], set: rules.settings(all[from].FleetID, "truck-7"), zones: zones, endMs: endMs}
			if to < len(all) {
				x.endMs, x.ended = all[to].TimeMs, true
			}
			want = append(want, x.tell()...)
			from = to
		}
		wanted, gotten := wordless(want), wordless(got)
		for _, of := range telemetry.AlertTypes {
			require.Equal(t, brief(wanted[of]), brief(gotten[of]), "seed %d\n%s", seed, text)
			require.Equal(t, wanted[of], gotten[of], "seed %d\n%s", seed, text)
		}
		for _, x := range got {
			told[fmt.Sprint(x.Type, " ", x.Transition)]++
			require.NotEmpty(t, x.Message)
		}
		checkLives(t, got, &s)
	}
	for _, of := range telemetry.AlertTypes { // a test of what never happens is none
		require.Greater(t, told[fmt.Sprint(of, " ", telemetry.AlertResolved)], rounds/10, "%v", told)
	}
	require.Greater(t, told["speed_limit escalated"], rounds/10)
	t.Log(told)
}

// checkLives holds what every sequence of steps obeys: an alert opens, becomes graver and ends, one of a type at a time,
// and those without an end are the open ones.
func checkLives(t *testing.T, steps []telemetry.AlertEvent, s *State) {
	open := map[telemetry.AlertType]telemetry.Alert{}
	keys := map[string]bool{}
	for _, x := range steps {
		before, ok := open[x.Type]
		switch x.Transition {
		case telemetry.AlertOpened:
			require.False(t, ok, "%v is open already", x.Type)
			key := fmt.Sprint(x.FleetID, x.Type, x.OpenedMs)
			require.False(t, keys[key], "two alerts have one key")
			keys[key] = true
			require.LessOrEqual(t, x.StartedMs, x.OpenedMs)
			open[x.Type] = x.Alert
		case telemetry.AlertEscalated:
			require.True(t, ok)
			require.True(t, x.Severity.Graver(before.Severity))
			require.Equal(t, before.OpenedMs, x.OpenedMs)
			open[x.Type] = x.Alert
		case telemetry.AlertResolved:
			require.True(t, ok)
			require.Equal(t, before.OpenedMs, x.OpenedMs)
			require.Equal(t, before.Severity, x.Severity)
			require.GreaterOrEqual(t, x.EndedMs, x.OpenedMs)
			delete(open, x.Type)
		}
	}
	for a := range s.Open() {
		require.Equal(t, open[a.Type].OpenedMs, a.OpenedMs)
		delete(open, a.Type)
	}
	require.Empty(t, open)
}

// A state that goes through JSON at any point, and event time that goes on between fixes, change nothing.
func TestARestartChangesNothing(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 11))
		text, zones, all := someRules(random), someZones(random), track(random, 100)
		e, restarted := New(parsed(t, text), zones), New(parsed(t, text), slices.Clone(zones))
		var whole State
		want := apply(e, &whole, all...)
		for cut := range all {
			if seed > 4 && random.IntN(20) > 0 { // every point of some tracks, some points of every track
				continue
			}
			var s State
			got := apply(e, &s, all[:cut]...)
			kept := reread(t, &s)
			require.Equal(t, slices.Collect(s.Open()), slices.Collect(kept.Open()))
			require.Equal(t, s.AdvancedMs(), kept.AdvancedMs())
			got = append(got, apply(restarted, kept, all[cut:]...)...)
			require.Equal(t, want, got, "seed %d, cut at %d", seed, cut)
		}

		var s State // through JSON at every fix, advanced at random times
		var got []telemetry.AlertEvent
		more := func(x telemetry.AlertEvent) { got = append(got, x) }
		for i := range all {
			s = *reread(t, &s)
			checkNext(t, e, &s)
			if i > 0 {
				before, between := all[i-1].TimeMs, all[i].TimeMs-all[i-1].TimeMs
				for range random.IntN(4) {
					e.Advance(&s, before+random.Int64N(between+1), more)
				}
				require.LessOrEqual(t, s.AdvancedMs(), all[i].TimeMs)
			}
			e.Apply(&s, &all[i], more)
			require.Equal(t, all[i].TimeMs, s.AdvancedMs())
		}
		require.Equal(t, want, got, "seed %d", seed)
	}
}

// checkNext holds that nothing comes of silence before Next, and something then.
func checkNext(t *testing.T, e *Engine, s *State) {
	steps := 0
	count := func(telemetry.AlertEvent) { steps++ }
	ms, ok := e.Next(s)
	if !ok {
		e.Advance(reread(t, s), 1<<60, count)
		require.Zero(t, steps)
		return
	}
	kept := reread(t, s)
	e.Advance(kept, ms-1, count)
	require.Zero(t, steps)
	e.Advance(kept, ms, count)
	require.Equal(t, 1, steps)
	require.Equal(t, ms, kept.AdvancedMs())
}
