package writer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// lwwStore keeps cells as Cassandra does: of two writes of a cell the one with the higher timestamp stays, of equals
// the larger value; a deleted row hides what was written up to its time.
type lwwStore struct {
	cells   map[string]map[string]lwwCell // by row, by column
	deleted map[string]int64
}

type lwwCell struct {
	timestamp int64
	value     string
}

func newLWWStore() *lwwStore {
	return &lwwStore{cells: map[string]map[string]lwwCell{}, deleted: map[string]int64{}}
}

func (s *lwwStore) set(row, column string, timestamp int64, value any) {
	if s.cells[row] == nil {
		s.cells[row] = map[string]lwwCell{}
	}
	c := lwwCell{timestamp, fmt.Sprint(value)}
	old, ok := s.cells[row][column]
	if !ok || c.timestamp > old.timestamp || c.timestamp == old.timestamp && c.value > old.value {
		s.cells[row][column] = c
	}
}

func (s *lwwStore) setLatest(row string, r cassandra.LatestRow) {
	if r.LastTsMs != nil {
		s.set(row, "last_ts", r.WriteTimeUs, *r.LastTsMs)
		s.set(row, "lat", r.WriteTimeUs, *r.Lat)
		s.set(row, "zone", r.WriteTimeUs, r.Zone)
		s.set(row, "fleet_id", r.WriteTimeUs, r.FleetID)
	}
	if r.SpeedKmh != nil {
		s.set(row, "speed", r.WriteTimeUs, *r.SpeedKmh)
	}
	if r.HeadingDeg != nil {
		s.set(row, "heading", r.WriteTimeUs, *r.HeadingDeg)
	}
	if r.BatteryPct != nil {
		s.set(row, "battery", r.WriteTimeUs, *r.BatteryPct)
	}
	if r.TempC != nil {
		s.set(row, "temp", r.WriteTimeUs, *r.TempC)
	}
}

func (s *lwwStore) apply(p *plan) {
	for key, r := range p.devices {
		row := "devices " + key.fleet + " " + key.device
		if r.Status != "" {
			s.set(row, "status", r.StatusWriteTimeUs, r.Status)
		}
		if r.ActivatedAtMs != 0 {
			s.set(row, "activated_at", -r.ActivatedAtMs, r.ActivatedAtMs)
		}
	}
	for key, version := range p.moves {
		row := "map " + key.fleet + " " + key.device
		s.deleted[row] = max(s.deleted[row], version)
	}
	for id, version := range p.cleared {
		for _, column := range []string{"speed", "heading", "battery", "temp"} {
			cell := "device " + id + " " + column
			s.deleted[cell] = max(s.deleted[cell], version)
		}
	}
	for i := range p.latest {
		p.latest[i].rows(func(fleet string, r cassandra.LatestRow) {
			s.setLatest("device "+r.DeviceID, r)
			if fleet != "" {
				s.setLatest("map "+fleet+" "+r.DeviceID, r)
			}
		})
	}
	for key, items := range p.history {
		for _, item := range items {
			h := historyRow(item, item.TimeMs)
			row := fmt.Sprintf("history %s %d", key.device.id, h.TsMs)
			s.set(row, "lat", h.WriteTimeUs, h.Lat)
			s.set(row, "fleet_id", h.WriteTimeUs, h.FleetID)
			if h.SpeedKmh != nil {
				s.set(row, "speed", h.WriteTimeUs, *h.SpeedKmh)
			}
			if h.BatteryPct != nil {
				s.set(row, "battery", h.WriteTimeUs, *h.BatteryPct)
			}
			if h.AccuracyM != nil {
				s.set(row, "accuracy", h.WriteTimeUs, *h.AccuracyM)
			}
		}
	}
}

// stored returns what a restarted process reads of a device.
func (s *lwwStore) stored(device string) cassandra.WriteTimes {
	row := maps.Clone(s.cells["device "+device])
	maps.DeleteFunc(row, func(column string, c lwwCell) bool { return c.timestamp <= s.deleted["device "+device+" "+column] })
	return cassandra.WriteTimes{
		Found: row["last_ts"].timestamp != 0, FleetID: row["fleet_id"].value, LastUs: row["last_ts"].timestamp,
		SpeedUs: row["speed"].timestamp, HeadingUs: row["heading"].timestamp, BatteryUs: row["battery"].timestamp, TempUs: row["temp"].timestamp,
	}
}

// visible returns what reads return, one line per row.
func (s *lwwStore) visible() string {
	var lines []string
	for row, cells := range s.cells {
		var seen []string
		for _, column := range slices.Sorted(maps.Keys(cells)) {
			if c := cells[column]; c.timestamp > max(s.deleted[row], s.deleted[row+" "+column]) || column == "activated_at" {
				seen = append(seen, column+"="+c.value)
			}
		}
		if strings.HasPrefix(row, "map ") && !slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(s, "last_ts=") }) {
			continue // reads leave out rows without a time
		}
		lines = append(lines, row+": "+strings.Join(seen, " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// process plans records in batches, and drops all devices at random times, as a restart does.
func process(rng *rand.Rand, items []pipeline.Item, s *lwwStore, restarts bool) {
	known := map[string]*device{}
	for from := 0; from < len(items); {
		to := min(len(items), from+1+rng.IntN(10))
		if restarts && rng.IntN(4) == 0 {
			clear(known)
		}
		for i := from; i < to; i++ {
			if id := items[i].DeviceID; known[id] == nil {
				known[id] = &device{id: id}
				known[id].restore(s.stored(id))
			}
		}
		p := newPlan(to - from)
		for i := from; i < to; i++ {
			p.add(known[items[i].DeviceID], &items[i])
		}
		s.apply(p)
		from = to
	}
}

func randomItems(rng *rand.Rand, n int) []pipeline.Item {
	const t0 = 1_790_000_000_000
	items := make([]pipeline.Item, n)
	for i := range items {
		r := telemetry.Record{
			DeviceID: fmt.Sprintf("d%d", rng.IntN(3)), FleetID: fmt.Sprintf("f%d", rng.IntN(2+rng.IntN(2))),
			TimeMs: t0 + int64(rng.IntN(40))*1000, Lat: float64(rng.IntN(90)), Lon: 1, Zone: "unknown",
		}
		if rng.IntN(2) == 0 {
			r.SpeedKmh = telemetry.Some(float64(rng.IntN(100)))
		}
		if rng.IntN(2) == 0 {
			r.BatteryPct = telemetry.Some(int32(rng.IntN(100)))
		}
		if rng.IntN(5) == 0 {
			r.HeadingDeg = telemetry.Some(float64(rng.IntN(360)))
		}
		if rng.IntN(5) == 0 {
			r.TempC = telemetry.Some(float64(rng.IntN(30)))
		}
		if rng.IntN(3) == 0 {
			r.AccuracyM = telemetry.Some(float64(rng.IntN(50)))
		}
		items[i] = pipeline.Item{Record: r, Hash: r.PayloadHash()}
	}
	// The one case that the device leaves to the order of arrival.
	fleets := map[string]string{}
	return slices.DeleteFunc(items, func(item pipeline.Item) bool {
		key := fmt.Sprint(item.DeviceID, version(&item))
		fleet, ok := fleets[key]
		fleets[key] = item.FleetID
		return ok && fleet != item.FleetID
	})
}

func TestAnyOrderLeavesTheSameRows(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		items := randomItems(rng, 1+rng.IntN(60))
		slices.SortStableFunc(items, func(a, b pipeline.Item) int { return int(version(&a) - version(&b)) })
		sorted := newLWWStore()
		process(rng, items, sorted, false)
		want := sorted.visible()
		for try := range 6 {
			shuffled := slices.Concat(items, items[:rng.IntN(len(items)+1)]) // with duplicates
			rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			s := newLWWStore()
			process(rng, shuffled, s, try%2 == 1)
			if got := s.visible(); got != want {
				t.Fatalf("seed %d, try %d (restarts %v): rows differ\n%s", seed, try, try%2 == 1, difference(want, got))
			}
		}
	}
}

// difference gives the lines that only one of two texts has.
func difference(want, got string) string {
	in := func(text, line string) bool { return slices.Contains(strings.Split(text, "\n"), line) }
	var lines []string
	for _, line := range strings.Split(want, "\n") {
		if !in(got, line) {
			lines = append(lines, "in order: "+line)
		}
	}
	for _, line := range strings.Split(got, "\n") {
		if !in(want, line) {
			lines = append(lines, "shuffled: "+line)
		}
	}
	return strings.Join(lines, "\n")
}

// The oracle: what the design says of each row, computed from all records at once.
func TestRowsAreWhatTheRecordsSay(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		items := randomItems(rng, 1+rng.IntN(60))
		s := newLWWStore()
		process(rng, items, s, true)
		visible := strings.Split(s.visible(), "\n")
		newest := map[string]*pipeline.Item{}
		for i := range items {
			n := newest[items[i].DeviceID]
			if n == nil || version(&items[i]) > version(n) {
				newest[items[i].DeviceID] = &items[i]
			}
		}
		for device, n := range newest {
			if got := s.cells["device "+device]["last_ts"].value; got != fmt.Sprint(n.TimeMs) {
				t.Fatalf("seed %d: device %s: latest position at %s, not %d", seed, device, got, n.TimeMs)
			}
			// An optional cell is the newest of the device's time in its fleet. Nothing of another fleet is left.
			since := int64(0)
			for i := range items {
				if items[i].DeviceID == device && items[i].FleetID != n.FleetID {
					since = max(since, version(&items[i]))
				}
			}
			battery, at := "", since
			for i := range items {
				if v := version(&items[i]); items[i].DeviceID == device && items[i].BatteryPct.Valid && v > at {
					battery, at = fmt.Sprintf("battery=%d ", items[i].BatteryPct.Value), v
				}
			}
			line := slices.IndexFunc(visible, func(line string) bool { return strings.HasPrefix(line, "device "+device+":") })
			if row := visible[line]; battery == "" && strings.Contains(row, "battery=") || !strings.Contains(row, battery) {
				t.Fatalf("seed %d: device %s: want %q in %s", seed, device, battery, row)
			}
			for _, fleet := range []string{"f0", "f1", "f2"} {
				status := s.cells["devices "+fleet+" "+device]["status"].value
				onMap := strings.Contains(s.visible(), "map "+fleet+" "+device+":")
				switch {
				case fleet == n.FleetID && (status != "active" || !onMap):
					t.Fatalf("seed %d: device %s of fleet %s: status %q, on the map: %v", seed, device, fleet, status, onMap)
				case fleet != n.FleetID && (status == "active" || onMap):
					t.Fatalf("seed %d: device %s left fleet %s: status %q, on the map: %v", seed, device, fleet, status, onMap)
				}
			}
		}
	}
}
