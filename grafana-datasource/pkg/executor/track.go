package executor

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/downsample"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

const (
	// maxHistory is the age of the oldest position: the retention of 30 days, and a day for clock differences.
	maxHistory = 31 * 24 * time.Hour
	// concurrentTracks is how many devices are downsampled at once.
	concurrentTracks = 8
	// daysAtOnce is how many days of a device are read in parallel and in memory at once, if there is memory.
	daysAtOnce = 8
	// firstDayBytes is the assumed size of a day until one has been read: a position every two seconds. minDayBytes is the
	// least that is assumed afterwards.
	firstDayBytes = 4 << 20
	minDayBytes   = 64 << 10
	// The approximate sizes of a kept position in a route and in a series, with its frame.
	routeBytes  = 2*int(unsafe.Sizeof(downsample.Row[cassandra.Position]{})) + 10*memory.CellBytes
	seriesBytes = 2*int(unsafe.Sizeof(downsample.Row[float64]{})) + 2*memory.CellBytes
)

// track returns the positions of devices over the time range. Each day of each device is one partition. A few days are
// read in parallel and then downsampled, so memory grows with what is shown and not with what is read.
func (x *execution) track(ctx context.Context, q *query.Track) error {
	devices := slices.Compact(slices.Sorted(slices.Values(q.Devices)))
	if most := x.settings.MaxPartitions; len(devices) > most {
		x.truncated("Only the first %d of %d vehicles: a query reads at most %d partitions.", most, len(devices), most)
		devices = devices[:most]
	}
	plan := x.planTrack(q, len(devices))
	tracks, err := forEach(ctx, concurrentTracks, devices, func(ctx context.Context, device string) (*track, error) {
		t := x.newTrack(q, plan, device)
		var err error
		if access := x.settings.Access; access.Restricted() {
			t.fleets, err = x.reader.FleetsOf(ctx, device, access.Fleets())
		}
		return t, cmp.Or(err, t.read(ctx), memory.Take(ctx, t.bytes()))
	})
	if err != nil {
		return err
	}
	for _, t := range tracks {
		if t.completeFrom > 0 {
			x.truncated("Only the newest positions of %s, starting %s: a query reads at most %d rows.",
				t.device, time.UnixMilli(t.completeFrom).UTC().Format(time.RFC3339), x.settings.MaxRowsRead)
		}
		x.Frames = append(x.Frames, t.frames(len(devices) > 1)...)
	}
	return nil
}

// trackPlan is what one track query reads.
type trackPlan struct {
	days         []cassandra.Day // newest first
	fromMs, toMs int64
	points       int           // to return, per device
	rowsLeft     *atomic.Int64 // to read, of all devices together
	dayBytes     *atomic.Int64 // of the largest day so far, 0 before the first
}

func (x *execution) planTrack(q *query.Track, devices int) trackPlan {
	now := x.now()
	p := trackPlan{
		fromMs:   max(q.From.UnixMilli(), now.Add(-maxHistory).UnixMilli()),
		toMs:     min(q.To.UnixMilli(), now.Add(24*time.Hour).UnixMilli()),
		points:   min(q.MaxDataPoints, max(x.settings.MaxRows/devices, 4)),
		rowsLeft: &atomic.Int64{},
		dayBytes: &atomic.Int64{},
	}
	p.rowsLeft.Store(int64(x.settings.MaxRowsRead))
	if q.Limit > 0 {
		p.points = min(p.points, q.Limit)
	}
	if p.fromMs <= p.toMs {
		for day := cassandra.DayOf(p.toMs); day >= cassandra.DayOf(p.fromMs); day-- {
			p.days = append(p.days, day)
		}
	}
	if most := max(x.settings.MaxPartitions/devices, 1); len(p.days) > most {
		p.days = p.days[:most]
		p.fromMs = p.days[most-1].Time().UnixMilli()
		x.truncated("Only the newest %d day(s), starting %s: a query reads at most %d partitions, and it names %d vehicle(s).",
			most, p.days[most-1], x.settings.MaxPartitions, devices)
	}
	return p
}

// track is the downsampled track of one device.
type track struct {
	*execution
	plan   trackPlan
	query  *query.Track
	device string
	fleets []string // of the device, to read; one that is empty stands for all
	fields []string

	anyFleet func(string) bool // that the query names

	numbers      []func(*cassandra.Position) *float64 // by field, for the format time_series
	series       []*downsample.Rows[float64]          // by field, for the format time_series
	route        *downsample.Rows[cassandra.Position] // for the format table
	completeFrom int64                                // Unix milliseconds; older positions were not read. 0: all were read
}

func (x *execution) newTrack(q *query.Track, p trackPlan, device string) *track {
	t := &track{execution: x, plan: p, query: q, device: device, fleets: []string{""}, fields: query.Selected(q.Fields, []string{"speed_kmh"}), anyFleet: anyOf(q.Fleets)}
	if q.Format == query.FormatTable {
		t.route = downsample.NewRows[cassandra.Position](p.fromMs, p.toMs, p.points, 3)
		return t
	}
	for _, name := range t.fields {
		t.numbers = append(t.numbers, frames.PositionNumbers[name])
		t.series = append(t.series, downsample.NewRows[float64](p.fromMs, p.toMs, p.points, 1))
	}
	return t
}

// read reads the days of the plan, newest first, and adds their positions. Of a device that was in no allowed fleet it reads none.
func (t *track) read(ctx context.Context) error {
	if len(t.fleets) == 0 {
		return nil
	}
	for days := t.plan.days; len(days) > 0; {
		n, err := t.readSome(ctx, days)
		if err != nil {
			return err
		}
		days = days[n:]
	}
	return nil
}

// readSome reads the first of some days and adds their positions: as many days as fit into a quarter of the memory of tracks.
// It waits for that memory, and releases it once the positions are added. It returns the number of days.
func (t *track) readSome(ctx context.Context, days []cassandra.Day) (int, error) {
	largest := cmp.Or(t.plan.dayBytes.Load(), firstDayBytes)
	n := min(max(int(trackBytes/4/largest), 1), daysAtOnce, len(days))
	weight := min(int64(n)*largest, trackBytes)
	if err := t.tracks.Acquire(ctx, weight); err != nil {
		return 0, err
	}
	defer t.tracks.Release(weight)
	parts, err := forEach(ctx, n, days[:n], func(ctx context.Context, day cassandra.Day) (*cassandra.Track, error) {
		return t.readDay(ctx, day)
	})
	if err != nil {
		return 0, err
	}
	for i, part := range parts {
		if part != nil {
			t.plan.dayBytes.Store(max(t.plan.dayBytes.Load(), int64(part.Bytes()), minDayBytes))
		}
		t.addDay(days[i], part)
	}
	return n, nil
}

// readDay reads the positions of a day. It returns nil if the row limit is used up. Only a device that moved between allowed fleets
// has several.
func (t *track) readDay(ctx context.Context, day cassandra.Day) (*cassandra.Track, error) {
	left := t.plan.rowsLeft.Load()
	if left <= 0 {
		return nil, nil
	}
	var whole *cassandra.Track
	for _, fleet := range t.fleets {
		part, err := t.reader.Day(ctx, t.device, fleet, day, t.plan.fromMs, t.plan.toMs, int(left))
		if err != nil {
			return nil, err
		}
		if whole != nil {
			part = whole.Merge(part)
		}
		whole = part
	}
	return whole, nil
}

// bytes estimates the memory of the kept positions and of their frames.
func (t *track) bytes() int {
	if t.route != nil {
		return t.route.Len()*routeBytes + memory.SeriesBytes
	}
	n := 0
	for _, series := range t.series {
		n += series.Len()*seriesBytes + memory.SeriesBytes
	}
	return n
}

// addDay adds the positions of one day. A nil part was not read, because the row limit was used up.
func (t *track) addDay(day cassandra.Day, part *cassandra.Track) {
	if t.completeFrom > 0 {
		return
	}
	if part == nil {
		t.completeFrom = (day + 1).Time().UnixMilli()
		return
	}
	if part.More || t.plan.rowsLeft.Add(-int64(len(part.Positions))) < 0 {
		t.completeFrom = (day + 1).Time().UnixMilli()
		if len(part.Positions) > 0 {
			t.completeFrom = part.Positions[0].TsMs
		}
	}
	for i := range part.Positions {
		p := &part.Positions[i]
		// Filters on numbers do not apply to tracks: they would cut holes into a line.
		if !t.settings.Access.Allows(p.Fleet) || !t.anyFleet(p.Fleet) || !query.Match(t.query.Filters, positionColumns, p) {
			continue
		}
		if t.route != nil {
			t.route.Add(p.TsMs, *p, p.Lat, p.Lon, p.SpeedKmh)
			continue
		}
		for j, number := range t.numbers {
			if v := *number(p); !math.IsNaN(v) {
				t.series[j].Add(p.TsMs, v, v)
			}
		}
	}
}

var positionColumns = query.Columns[cassandra.Position]{
	"fleet_id": func(p *cassandra.Position) query.Cell { return query.Text(p.Fleet) },
	"zone":     func(p *cassandra.Position) query.Cell { return query.Text(p.Zone) },
}

func (t *track) frames(severalDevices bool) data.Frames {
	if t.route != nil {
		return data.Frames{frames.Route(t.device, t.route.Kept())}
	}
	var list data.Frames
	for j, name := range t.fields {
		if f := frames.TrackSeries(t.device, name, t.series[j].Kept(), severalDevices, len(t.fields) > 1); f != nil {
			list = append(list, f)
		}
	}
	return list
}
