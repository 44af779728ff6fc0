package cassandra

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// Track holds the positions of a device as columns, oldest first. An absent number is NaN, an absent text is empty. A
// panel may ask for hundreds of thousands of positions, so each takes only about 60 bytes.
type Track struct {
	TsMs []int64 // Unix milliseconds

	Lat, Lon   []float64
	SpeedKmh   []float64
	HeadingDeg []float64
	BatteryPct []float64
	TempC      []float64

	Zones, Fleets Names

	// More is set if the range has more positions, older ones, than the limit.
	More bool
}

// Names is a column of texts with few different values.
type Names struct {
	index  []uint16
	values []string
}

// At is the text of row i.
func (n *Names) At(i int) string { return n.values[n.index[i]] }

// maxNames is the maximum number of different texts in a column. A day of a device has a handful.
const maxNames = math.MaxUint16

// Len is the number of positions.
func (t *Track) Len() int { return len(t.TsMs) }

// Bytes estimates the memory that the track takes.
func (t *Track) Bytes() int { return 60*cap(t.TsMs) + 500 }

const selectTrack = "SELECT ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone" +
	" FROM telemetry_by_device_day WHERE device_id = ? AND day = ? AND ts >= ? AND ts <= ? LIMIT ?"

// trackPage is larger than the driver's default of 5,000 rows: a day with a position every 10 s fits into one page.
const trackPage = 9000

// TrackOfDay reads the positions of a device in one UTC day between two instants in Unix milliseconds, both included. It
// reads at most limit of them, the newest.
func (s *TelemetryStore) TrackOfDay(ctx context.Context, deviceID string, day Day, fromMs, toMs int64, limit int) (*Track, error) {
	op := fmt.Sprintf("read day %s of device %s", day, deviceID)
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, opError(op, err)
	}
	defer leave()
	iter := s.query(ctx, selectTrack, deviceID, day, time.UnixMilli(fromMs), time.UnixMilli(toMs), limit+1).PageSize(trackPage).Iter()
	t := &Track{}
	t.grow(iter.NumRows())
	var ts int64
	var lat, lon, speed, heading, battery, temp numberCell
	var fleet, zone nameCell
	row := []any{&ts, &fleet, &lat, &lon, &speed, &heading, &battery, &temp, &zone}
	for iter.Scan(row...) {
		if len(t.TsMs) == limit {
			t.More = true
			break
		}
		t.TsMs = append(t.TsMs, ts)
		t.Lat = append(t.Lat, float64(lat))
		t.Lon = append(t.Lon, float64(lon))
		t.SpeedKmh = append(t.SpeedKmh, float64(speed))
		t.HeadingDeg = append(t.HeadingDeg, float64(heading))
		t.BatteryPct = append(t.BatteryPct, float64(battery))
		t.TempC = append(t.TempC, float64(temp))
		t.Fleets.Add(fleet.text)
		t.Zones.Add(zone.text)
	}
	if err := iter.Close(); err != nil {
		return nil, opError(op, err)
	}
	t.reverse() // stored newest first
	return t, nil
}

func (t *Track) grow(n int) {
	t.TsMs = make([]int64, 0, n)
	for _, column := range t.numbers() {
		*column = make([]float64, 0, n)
	}
	t.Zones.index, t.Fleets.index = make([]uint16, 0, n), make([]uint16, 0, n)
}

func (t *Track) numbers() []*[]float64 {
	return []*[]float64{&t.Lat, &t.Lon, &t.SpeedKmh, &t.HeadingDeg, &t.BatteryPct, &t.TempC}
}

func (t *Track) reverse() {
	slices.Reverse(t.TsMs)
	for _, column := range t.numbers() {
		slices.Reverse(*column)
	}
	slices.Reverse(t.Zones.index)
	slices.Reverse(t.Fleets.index)
}

// Between is the part of the track between two instants, both included. It shares the columns.
func (t *Track) Between(fromMs, toMs int64) *Track {
	from, _ := slices.BinarySearch(t.TsMs, fromMs)
	to, _ := slices.BinarySearch(t.TsMs, toMs+1)
	part := *t
	part.TsMs = t.TsMs[from:max(from, to)]
	for _, column := range part.numbers() {
		*column = (*column)[from:max(from, to)]
	}
	part.Zones.index = t.Zones.index[from:max(from, to)]
	part.Fleets.index = t.Fleets.index[from:max(from, to)]
	part.More = t.More && from == 0
	return &part
}

// Add appends a text.
func (n *Names) Add(name string) {
	last := len(n.index) - 1
	if last >= 0 && n.values[n.index[last]] == name { // the usual case
		n.index = append(n.index, n.index[last])
		return
	}
	i := slices.Index(n.values, name)
	if i < 0 {
		if i = len(n.values); i == maxNames {
			i = 0 // no vehicle visits so many geofences in a day
		} else {
			n.values = append(n.values, name)
		}
	}
	n.index = append(n.index, uint16(i))
}
