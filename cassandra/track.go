package cassandra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unsafe"
)

// Track holds the positions of a device, oldest first.
type Track struct {
	Positions []Position
	// More is set if the range has more positions, older ones, than the limit.
	More bool

	names int // bytes of the different texts
}

// Position is a position of a track. An absent number is NaN, an absent text is empty. A panel may ask for hundreds of
// thousands of positions: they share equal texts, and have no pointers to numbers.
type Position struct {
	TsMs int64 // Unix milliseconds

	Lat, Lon, SpeedKmh, HeadingDeg, BatteryPct, TempC float64

	Zone, Fleet string
}

// Bytes estimates the memory that the track takes.
func (t *Track) Bytes() int { return cap(t.Positions)*positionBytes + t.names }

const (
	positionBytes = int(unsafe.Sizeof(Position{}))
	nameBytes     = 80 // of a different text beside its length: its place in a map
)

const (
	trackOfDay = "ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone" +
		" FROM telemetry_by_device_day WHERE device_id = ? AND day = ? AND ts >= ? AND ts <= ?"
	selectTrack      = "SELECT " + trackOfDay + " LIMIT ?"
	selectTrackFleet = "SELECT " + trackOfDay + ofFleet
)

// trackPage is larger than the driver's default of 5,000 rows: a day with a position every 10 s fits into one page.
const trackPage = 9000

// TrackOfDay reads the positions of a device in one UTC day between two instants in Unix milliseconds, both included. It
// reads at most limit of them, the newest. A fleet selects its positions, an empty one the positions of every fleet.
func (s *TelemetryStore) TrackOfDay(ctx context.Context, deviceID, fleetID string, day Day, fromMs, toMs int64, limit int) (*Track, error) {
	op := fmt.Sprintf("read day %s of device %s", day, deviceID)
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, opError(op, err)
	}
	defer leave()
	statement, args := selectTrack, []any{deviceID, day, time.UnixMilli(fromMs), time.UnixMilli(toMs)}
	if fleetID != "" {
		statement, args = selectTrackFleet, append(args, fleetID)
	}
	iter := s.query(ctx, statement, append(args, limit+1)...).PageSize(trackPage).Iter()
	t := &Track{Positions: make([]Position, 0, iter.NumRows())}
	var ts int64
	var lat, lon, speed, heading, battery, temp numberCell
	fleet, zone := nameCell{seen: map[string]string{}}, nameCell{seen: map[string]string{}}
	take := MemoryOf(ctx)
	names := 0
	row := []any{&ts, &fleet, &lat, &lon, &speed, &heading, &battery, &temp, &zone}
	for iter.Scan(row...) {
		if len(t.Positions) == limit {
			t.More = true
			break
		}
		bytes := positionBytes * 3 / 2 // the list is copied when it grows
		if n := len(fleet.seen) + len(zone.seen); n > names {
			names = n
			t.names += len(fleet.text) + len(zone.text) + nameBytes
			bytes += len(fleet.text) + len(zone.text) + nameBytes
		}
		if err := take(bytes); err != nil {
			return nil, opError(op, errors.Join(err, iter.Close()))
		}
		t.Positions = append(t.Positions, Position{
			TsMs: ts, Lat: float64(lat), Lon: float64(lon), SpeedKmh: float64(speed), HeadingDeg: float64(heading),
			BatteryPct: float64(battery), TempC: float64(temp), Zone: zone.text, Fleet: fleet.text,
		})
	}
	if err := iter.Close(); err != nil {
		return nil, opError(op, err)
	}
	slices.Reverse(t.Positions) // stored newest first
	return t, nil
}

// Between is the part of the track between two instants, both included. It shares the positions.
func (t *Track) Between(fromMs, toMs int64) *Track {
	from, _ := slices.BinarySearchFunc(t.Positions, fromMs, byTime)
	to, _ := slices.BinarySearchFunc(t.Positions, toMs+1, byTime)
	return &Track{Positions: t.Positions[from:max(from, to)], More: t.More && from == 0}
}

// Merge returns the positions of two tracks of a device. If one of them has more, it leaves out what is older than its oldest.
func (t *Track) Merge(other *Track) *Track {
	from := int64(math.MinInt64)
	for _, part := range []*Track{t, other} {
		if part.More && len(part.Positions) > 0 {
			from = max(from, part.Positions[0].TsMs)
		}
	}
	merged := &Track{Positions: slices.Concat(t.Positions, other.Positions), names: t.names + other.names}
	slices.SortFunc(merged.Positions, func(a, b Position) int { return cmp.Compare(a.TsMs, b.TsMs) })
	merged = merged.Between(from, math.MaxInt64-1)
	merged.More = t.More || other.More
	return merged
}

func byTime(p Position, ms int64) int { return cmp.Compare(p.TsMs, ms) }
