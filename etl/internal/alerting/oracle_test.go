package alerting

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// oracle computes the alerts of all positions of a device in one fleet. It evaluates each type on its own and sees all
// positions at once, while the engine sees one after the other.
type oracle struct {
	records   []telemetry.Record
	set       *rules.Settings
	geofences circles
	endMs     int64 // end of the silence after the last position
	ended     bool  // the device changed to another fleet there
	result    []telemetry.AlertEvent
}

const never = -1 << 62

// events returns the events of all types, in the order of telemetry.AlertTypes.
func (x *oracle) events() []telemetry.AlertEvent {
	x.threshold(telemetry.SpeedLimit, &x.set.Speed)
	x.threshold(telemetry.BatteryLow, &x.set.Battery)
	x.threshold(telemetry.Temperature, &x.set.Temperature)
	x.enterAndExit()
	x.offline()
	x.stuck()
	return x.result
}

func (x *oracle) t(i int) int64  { return x.records[i].TimeMs }
func (x *oracle) gap(i int) bool { return x.t(i)-x.t(i-1) > x.set.MaxGapMs } // before position i

func (x *oracle) add(a telemetry.Alert, how telemetry.Transition) {
	a.DeviceID, a.FleetID = x.records[0].DeviceID, x.records[0].FleetID
	event := telemetry.AlertEvent{Alert: a, Transition: how}
	if how == telemetry.AlertEscalated {
		event.From = x.result[len(x.result)-1].Severity
	}
	x.result = append(x.result, event)
}

// resolve resolves an alert at position i, if there is one.
func (x *oracle) resolve(a telemetry.Alert, i int) {
	switch {
	case i < len(x.records):
		a.EndedMs = x.t(i)
	case x.ended:
		a.EndedMs = x.endMs
	default:
		return
	}
	x.add(a, telemetry.AlertResolved)
}

// around returns the geofences that contain a position, the smallest first.
func (x *oracle) around(i int) (all []telemetry.NearbyGeofence) {
	for _, z := range x.geofences {
		if p := z.relative(x.records[i].Lat, x.records[i].Lon); p.InsideM >= 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b telemetry.NearbyGeofence) int { return int(math.Copysign(1, a.AreaM2-b.AreaM2)) })
	return all
}

func (x *oracle) openedAt(a *telemetry.Alert, i int) {
	a.OpenedMs, a.Lat, a.Lon = x.t(i), x.records[i].Lat, x.records[i].Lon
	if in := x.around(i); a.Zone == "" && len(in) > 0 {
		a.Zone = in[0].Name
	}
}

func (x *oracle) threshold(of telemetry.AlertType, rule *rules.Threshold) {
	if !rule.Enabled {
		return
	}
	n := len(x.records)
	value := make([]float64, n)
	has := make([]bool, n)
	base := make([]float64, n)
	for i := range x.records {
		r := &x.records[i]
		switch of {
		case telemetry.SpeedLimit:
			value[i], has[i], base[i] = r.SpeedKmh.Value, r.SpeedKmh.Valid, x.set.SpeedLimitKmh
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
			l := rule.High[k]
			passed := value[i] >= l.Value
			if of == telemetry.SpeedLimit {
				passed = value[i] > base[i]+l.Value
			}
			if low {
				l = rule.Low[k]
				passed = value[i] <= l.Value
			}
			if l.Valid && passed && s.HigherThan(best) {
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
			if low && rule.Low[k].Valid && value[i] < rule.Low[k].Value+rule.Hysteresis ||
				!low && rule.High[k].Valid && value[i] > base[i]+rule.High[k].Value-rule.Hysteresis {
				return false
			}
		}
		return true
	}
	// since returns the first position, not before from, of the unbroken time that holds at position i.
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
		if x.t(j)-x.t(first) < rule.ForMs {
			continue
		}
		low := s == "true"
		a := telemetry.Alert{Type: of, StartedMs: x.t(first)}
		x.openedAt(&a, j)
		update := func(to int) {
			peak := furthest(first, to, low)
			a.Peak = value[peak]
			a.Severity, a.Threshold = severity(peak, low)
		}
		update(j)
		x.add(a, telemetry.AlertOpened)
		m := j + 1
		for ; m < n; m++ {
			before := a.Severity
			if update(m); a.Severity != before {
				x.add(a, telemetry.AlertEscalated)
			}
			if well(m, low) && x.t(m)-x.t(since(m, j, func(k int) bool { return well(k, low) })) >= rule.ClearForMs {
				break
			}
		}
		x.resolve(a, m)
		if m == n {
			return
		}
		from, rest = m, x.t(m)+rule.CoolDownMs
		j = m - 1
	}
}

// visit is a stay in a geofence, from the position that confirmed the entry to the one that confirmed the exit.
type visit struct {
	geofence    telemetry.NearbyGeofence
	from, to    int
	since, left int // the first of the confirming positions
	first       bool
}

func (x *oracle) visits() (all []visit) {
	n, need := len(x.records), x.set.Positions
	for _, z := range x.geofences {
		depth := make([]float64, n)
		clear := make([]float64, n)
		for i, r := range x.records {
			depth[i] = z.relative(r.Lat, r.Lon).InsideM
			clear[i] = min(z.radius/2, min(250, max(x.set.MarginM, r.AccuracyM.Value)))
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
			v = &visit{geofence: z.relative(0, 0), first: true}
		}
		for i := 1; i < n; i++ {
			switch {
			case v == nil && row(i, last, func(k int) bool { return depth[k] >= clear[k] }):
				v = &visit{geofence: z.relative(0, 0), from: i, since: i - need + 1}
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
	slices.SortFunc(all, func(a, b visit) int { return int(math.Copysign(1, a.geofence.AreaM2-b.geofence.AreaM2)) })
	return all
}

func (x *oracle) enterAndExit() {
	n := len(x.records)
	visits := x.visits()
	for _, of := range []telemetry.AlertType{telemetry.GeofenceEnter, telemetry.GeofenceExit} {
		rule, enter := &x.set.Exit, of == telemetry.GeofenceEnter
		if enter {
			rule = &x.set.Enter
		}
		if !rule.Enabled {
			continue
		}
		type turn struct {
			names []string
			since int
		}
		turns := make([]turn, n+1)
		turnsBack := make([]map[string]bool, n+1)
		for i := range turnsBack {
			turnsBack[i] = map[string]bool{}
		}
		for _, v := range visits {
			in, out, since, asks := v.from, v.to, v.since, v.geofence.OnEnter
			if !enter {
				in, out, since, asks = out, in, v.left, v.geofence.OnExit
			}
			if (!v.first || !enter) && in < n && (asks || rule.Includes(v.geofence.Name)) {
				turns[in].names, turns[in].since = append(turns[in].names, v.geofence.Name), since
			}
			if !v.first || enter {
				turnsBack[out][v.geofence.Name] = true
			}
		}
		for i, e := range turns {
			if e.names == nil {
				continue
			}
			a := telemetry.Alert{Type: of, Severity: rule.Severity, StartedMs: x.t(e.since), Zone: strings.Join(e.names, ", ")}
			x.openedAt(&a, i)
			x.add(a, telemetry.AlertOpened)
			j := i + 1
			for ; j < n && turns[j].names == nil && x.t(j) < x.t(i)+rule.HoldMs; j++ {
				if slices.ContainsFunc(e.names, func(z string) bool { return turnsBack[j][z] }) {
					break
				}
			}
			x.resolve(a, j)
		}
	}

	rule := &x.set.Dwell
	if !rule.Enabled {
		return
	}
	rest := int64(never)
	for i := 0; i < n; i++ {
		for _, v := range visits {
			limit, named := rule.LimitsMs[v.geofence.Name]
			if !named && v.geofence.DwellS.Valid {
				limit, named = int64(v.geofence.DwellS.Value)*1000, true
			}
			if !named {
				limit, named = rule.LimitsMs["*"]
			}
			inside := func(i int) bool {
				return slices.ContainsFunc(x.around(i), func(p telemetry.NearbyGeofence) bool { return p.Name == v.geofence.Name })
			}
			if !named || i < v.from || i >= v.to || x.t(i)-x.t(v.since) < limit || x.t(i) < rest || !inside(i) {
				continue
			}
			a := telemetry.Alert{Type: telemetry.GeofenceDwell, Severity: rule.Severity, StartedMs: x.t(v.since), Zone: v.geofence.Name}
			x.openedAt(&a, i)
			a.Threshold, a.Peak = float64(limit)/1000, float64(x.t(i)-x.t(v.since))/1000
			x.add(a, telemetry.AlertOpened)
			for k := i; k < v.to; k++ {
				if inside(k) {
					a.Peak = float64(x.t(k)-x.t(v.since)) / 1000
				}
			}
			x.resolve(a, v.to)
			if i = v.to; i < n {
				rest = x.t(i) + rule.CoolDownMs
			}
			i-- // the position that resolved it may open another
			break
		}
	}
}

func (x *oracle) offline() {
	rule, rest := &x.set.Offline, int64(never)
	if !rule.Enabled {
		return
	}
	for i, r := range x.records {
		until := x.endMs
		if i+1 < len(x.records) {
			until = x.t(i + 1)
		}
		a := telemetry.Alert{Type: telemetry.DeviceOffline, StartedMs: r.TimeMs, Lat: r.Lat, Lon: r.Lon}
		if in := x.around(i); len(in) > 0 {
			a.Zone = in[0].Name
		}
		grade := func(ms int64) (s telemetry.Severity, limit float64) {
			for k, l := range rule.AfterMs {
				if l.Valid && float64(ms-r.TimeMs) >= l.Value && telemetry.Severities[k].HigherThan(s) {
					s, limit = telemetry.Severities[k], l.Value/1000
				}
			}
			return s, limit
		}
		for ms := max(r.TimeMs, rest); ms <= until; ms += 1000 { // the levels are whole seconds
			s, limit := grade(ms)
			if !s.HigherThan(a.Severity) {
				continue
			}
			how := telemetry.AlertEscalated
			if a.OpenedMs == 0 {
				a.OpenedMs, how = ms, telemetry.AlertOpened
			}
			a.Severity, a.Threshold, a.Peak = s, limit, float64(ms-r.TimeMs)/1000
			x.add(a, how)
		}
		if a.OpenedMs != 0 {
			if a.Peak = float64(until-r.TimeMs) / 1000; i+1 < len(x.records) {
				rest = until + rule.CoolDownMs
			}
			x.resolve(a, i+1)
		}
	}
}

func (x *oracle) stuck() {
	rule, rest, n := &x.set.Stuck, int64(never), len(x.records)
	if !rule.Enabled {
		return
	}
	slow := func(i int) bool { v := x.records[i].SpeedKmh; return v.Valid && v.Value < rule.MinSpeedKmh }
	drives := func(i int) bool { return x.records[i].SpeedKmh.Valid && !slow(i) }
	for a := 0; a < n; a++ {
		if !drives(a) {
			continue
		}
		moved := func(b int) bool {
			p, q := &x.records[a], &x.records[b]
			return math.Hypot(p.Lat-q.Lat, p.Lon-q.Lon)*metersPerDegree > rule.RadiusM // the tests are at the equator
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
			if alert == nil && seen >= rule.Positions && lasts >= rule.ForMs && x.t(b) >= rest {
				alert = &telemetry.Alert{Type: telemetry.DeviceStuck, Severity: rule.Severity, StartedMs: x.t(a), Threshold: float64(rule.ForMs) / 1000}
				x.openedAt(alert, b)
				alert.Peak = float64(lasts) / 1000
				x.add(*alert, telemetry.AlertOpened)
			}
			if alert != nil {
				alert.Peak = float64(lasts) / 1000
			}
		}
		if alert != nil {
			x.resolve(*alert, b)
			if b < n {
				rest = x.t(b) + rule.CoolDownMs
			}
		}
		a = b - 1
	}
}

// track returns a random track through geofences, with jams, gaps, absent values and changes of fleet.
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
			step := speed * random.Float64() * 2
			east, north = east+step*math.Cos(heading), north+step*math.Sin(heading)
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
		r.Lat = (north + dNorth) / metersPerDegree
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

// randomGeofences returns random overlapping geofences around the center.
func randomGeofences(random *rand.Rand) (all circles) {
	for i := range random.IntN(6) {
		z := circle{radius: 20 + random.Float64()*600, east: random.NormFloat64() * 400, north: random.NormFloat64() * 400}
		z.Name, z.OnEnter, z.OnExit = fmt.Sprint("zone-", i), random.IntN(2) == 0, random.IntN(2) == 0
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

// randomRules returns a random file.
func randomRules(random *rand.Rand) string {
	s := func(most int) string { return fmt.Sprintf("%ds", random.IntN(most)) }
	common := func() string {
		return fmt.Sprintf("hysteresis: %d, for: %s, clear_for: %s, cool_down: %s", random.IntN(8), s(60), s(60), s(1200)) + flip(random)
	}
	names := []string{"[]", `["*"]`, "[zone-0]", "[zone-1, zone-2]"}
	lines := []string{
		"max_gap: " + fmt.Sprintf("%ds", 30+random.IntN(400)),
		fmt.Sprintf("geofences: {margin_m: %d, positions: %d}", random.IntN(60), 1+random.IntN(3)),
		fmt.Sprintf("speed_limit: {limit: %d, levels: {LOW: %d, MEDIUM: 25, HIGH: 50}, %s}", 40+random.IntN(90), random.IntN(20), common()),
		fmt.Sprintf("battery_low: {levels: {LOW: %d, HIGH: 10}, %s}", 20+random.IntN(30), common()),
		fmt.Sprintf("temperature: {high: {LOW: %d, MEDIUM: 12}, low: {LOW: 0, HIGH: -4}, %s}", 5+random.IntN(4), common()),
		fmt.Sprintf("geofence_enter: {geofences: %s, hold: %ds%s}", names[random.IntN(4)], 1+random.IntN(600), flip(random)),
		fmt.Sprintf("geofence_exit: {geofences: %s, severity: HIGH, hold: %ds%s}", names[random.IntN(4)], 1+random.IntN(600), flip(random)),
		fmt.Sprintf(`geofence_dwell: {geofences: {zone-1: 3m, "*": %ds}, cool_down: %s%s}`, 60+random.IntN(900), s(1200), flip(random)),
		fmt.Sprintf("device_offline: {after: {LOW: %ds, MEDIUM: 1h, HIGH: 2h}, cool_down: %s%s}", 60+random.IntN(900), s(3000), flip(random)),
		fmt.Sprintf("device_stuck: {min_speed: %d, radius_m: %d, for: %ds, positions: %d, cool_down: %s%s}", 1+random.IntN(30), 15+random.IntN(20), 1+random.IntN(300), 2+random.IntN(5), s(1200), flip(random)),
	}
	return "defaults:\n  " + strings.Join(lines, "\n  ") + "\nfleets:\n  b:\n    speed_limit: {limit: 70, cool_down: 5m}\n    geofences: {margin_m: 5}\n"
}

// flip disables a rule at random.
func flip(random *rand.Rand) string {
	if random.IntN(10) == 0 {
		return ", enabled: false"
	}
	return ""
}

// withoutMessages returns events by type. The oracle makes no messages.
func withoutMessages(events []telemetry.AlertEvent) map[telemetry.AlertType][]telemetry.AlertEvent {
	by := map[telemetry.AlertType][]telemetry.AlertEvent{}
	for _, x := range events {
		x.Message = ""
		by[x.Type] = append(by[x.Type], x)
	}
	return by
}

func TestEngineEqualsOracle(t *testing.T) {
	rounds, seen := 300, map[string]int{}
	for seed := range uint64(rounds) {
		random := rand.New(rand.NewPCG(seed, 7))
		text, geofences, all := randomRules(random), randomGeofences(random), track(random, 20+random.IntN(200))
		r := parsed(t, text)
		e := New(r, geofences)
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
			x := oracle{records: all[from:to], set: r.For(all[from].FleetID, "truck-7"), geofences: geofences, endMs: endMs}
			if to < len(all) {
				x.endMs, x.ended = all[to].TimeMs, true
			}
			want = append(want, x.events()...)
			from = to
		}
		wanted, gotten := withoutMessages(want), withoutMessages(got)
		for _, of := range telemetry.AlertTypes {
			require.Equal(t, brief(wanted[of]), brief(gotten[of]), "seed %d\n%s", seed, text)
			require.Equal(t, wanted[of], gotten[of], "seed %d\n%s", seed, text)
		}
		for _, x := range got {
			seen[fmt.Sprint(x.Type, " ", x.Transition)]++
			require.NotEmpty(t, x.Message)
		}
		checkSequence(t, got, &s)
	}
	for _, of := range telemetry.AlertTypes { // otherwise the test proves nothing
		require.Greater(t, seen[fmt.Sprint(of, " ", telemetry.AlertResolved)], rounds/10, "%v", seen)
	}
	require.Greater(t, seen["speed_limit escalated"], rounds/10)
	t.Log(seen)
}

// checkSequence checks the invariants of events: an alert opens, escalates and resolves, one per type at a time, and the
// unresolved ones are open.
func checkSequence(t *testing.T, events []telemetry.AlertEvent, s *State) {
	open := map[telemetry.AlertType]telemetry.Alert{}
	keys := map[string]bool{}
	for _, x := range events {
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
			require.True(t, x.Severity.HigherThan(before.Severity))
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

// A round trip of the state through JSON, and event time that advances between positions, change nothing.
func TestRestartChangesNothing(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 11))
		text, geofences, all := randomRules(random), randomGeofences(random), track(random, 100)
		e, restarted := New(parsed(t, text), geofences), New(parsed(t, text), slices.Clone(geofences))
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

		var s State // through JSON at every position, advanced at random times
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

// checkNext checks that Advance yields no event before Next, and one then.
func checkNext(t *testing.T, e *Engine, s *State) {
	events := 0
	count := func(telemetry.AlertEvent) { events++ }
	ms, ok := e.Next(s)
	if !ok {
		e.Advance(reread(t, s), 1<<60, count)
		require.Zero(t, events)
		return
	}
	kept := reread(t, s)
	e.Advance(kept, ms-1, count)
	require.Zero(t, events)
	e.Advance(kept, ms, count)
	require.Equal(t, 1, events)
	require.Equal(t, ms, kept.AdvancedMs())
}
