package plugin

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/thin"
)

// historyKept is how far back fixes can be: 30 days, and one for clocks.
const historyKept = 31 * 24 * time.Hour

// track answers with the fixes of vehicles over the time range. The range is planned into days, one partition each,
// which are read side by side; what is read is thinned at once, so that memory follows what is shown and not what is
// read.
func (d *Datasource) track(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	for _, fleet := range q.Fleets {
		if !d.settings.allows(fleet) {
			return a, forbidden(fleet, &d.settings)
		}
	}
	devices := slices.Clone(q.Devices)
	slices.Sort(devices)
	devices = slices.Compact(devices)
	if most := d.settings.maxPartitions; len(devices) > most {
		a.cut("Only the first %d of %d vehicles: the data source reads at most %d partitions a query.", most, len(devices), most)
		devices = devices[:most]
	}
	now := d.now()
	from := max(q.from.UnixMilli(), now.Add(-historyKept).UnixMilli())
	to := min(q.to.UnixMilli(), now.Add(24*time.Hour).UnixMilli())
	var days []cassandra.Day // newest first
	if from <= to {
		for day := cassandra.DayOf(to); day >= cassandra.DayOf(from); day-- {
			days = append(days, day)
		}
	}
	if most := max(d.settings.maxPartitions/len(devices), 1); len(days) > most {
		days = days[:most]
		from = days[most-1].Time().UnixMilli()
		a.cut("Only the newest %d day(s), from %s on: %d vehicles and the limit of %d partitions a query.", most, days[most-1], len(devices), d.settings.maxPartitions)
	}
	perDevice := min(q.maxDataPoints, max(d.settings.maxRows/len(devices), 4))
	if q.Limit > 0 {
		perDevice = min(perDevice, q.Limit)
	}
	budget := &atomic.Int64{}
	budget.Store(int64(d.settings.maxRowsRead))
	tracks := make([]*thinned, len(devices))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(devicesAtOnce)
	for i, device := range devices {
		g.Go(func() (err error) {
			tracks[i], err = d.thinTrack(ctx, c, q, device, days, from, to, perDevice, budget)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return a, err
	}
	for i, t := range tracks {
		if t.cutAt > 0 {
			a.cut("Only the newest fixes of %s, from %s on: the data source reads at most %d rows a query.", devices[i], time.UnixMilli(t.cutAt).UTC().Format(time.RFC3339), d.settings.maxRowsRead)
		}
		if t.hidden > 0 {
			a.cut("%d fixes of %s are left out: they belong to fleets that this data source has no right on.", t.hidden, devices[i])
		}
		if q.Format == formatTable {
			a.frames = append(a.frames, d.routeFrame(devices[i], t))
		} else {
			a.frames = append(a.frames, seriesFrames(devices[i], t, q.fields("speed_kmh"), len(devices) > 1)...)
		}
	}
	if len(a.frames) == 0 {
		a.frames = data.Frames{noSeries()}
	}
	return a, nil
}

// devicesAtOnce is how many vehicles are thinned at once; what they read at once is bounded for the data source.
const devicesAtOnce = 8

// daysAhead is how many days of a vehicle are read ahead of the one that is being thinned.
const daysAhead = 8

// thinned is a track as it will be shown.
type thinned struct {
	series []*thin.Series  // one a field, for time series
	rows   *thin.Rows[fix] // for a route
	cutAt  int64           // oldest fix that was read, when older ones were not; Unix milliseconds
	hidden int             // fixes of fleets that may not be seen
}

// fix is what a route shows of a fix.
type fix struct {
	lat, lon, speed, heading, battery, temp float64
	zone, fleet                             string
}

func (d *Datasource) thinTrack(ctx context.Context, c *cost, q *query, device string, days []cassandra.Day, from, to int64, limit int, budget *atomic.Int64) (*thinned, error) {
	t := &thinned{}
	fields := q.fields("speed_kmh")
	if q.Format == formatTable {
		t.rows = thin.NewRows[fix](from, to, limit, 3)
	} else {
		for range fields {
			t.series = append(t.series, thin.NewSeries(from, to, limit))
		}
	}
	// Readers run ahead by a few days and no more, each into a place of its own.
	g, ctx := errgroup.WithContext(ctx)
	ahead := make(chan struct{}, daysAhead)
	parts := make([]chan *cassandra.Track, len(days))
	for i := range parts {
		parts[i] = make(chan *cassandra.Track, 1)
	}
	g.Go(func() error {
		for i, day := range days {
			select {
			case ahead <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() error {
				left := budget.Load()
				if left <= 0 {
					parts[i] <- nil
					return nil
				}
				part, err := d.reader.day(ctx, c, device, day, from, to, int(left))
				if err != nil {
					return err
				}
				parts[i] <- part
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for i := range days {
			var part *cassandra.Track
			select {
			case part = <-parts[i]:
			case <-ctx.Done():
				return ctx.Err()
			}
			if t.cutAt == 0 {
				if part == nil || part.More || budget.Add(-int64(part.Len())) < 0 {
					t.cutAt = wholeFrom(part, days[i])
				}
				if part != nil {
					d.feed(t, q, part, fields)
				}
			}
			<-ahead
		}
		return nil
	})
	return t, g.Wait()
}

// wholeFrom is the time from which on a track is whole whose last part this is.
func wholeFrom(part *cassandra.Track, day cassandra.Day) int64 {
	if part != nil && part.Len() > 0 {
		return part.TsMs[0]
	}
	return (day + 1).Time().UnixMilli()
}

func (d *Datasource) feed(t *thinned, q *query, part *cassandra.Track, fields []string) {
	restricted := len(d.settings.allowedFleets) > 0
	columns := make([][]float64, len(t.series))
	for j := range columns {
		columns[j] = columnOf(part, fields[j])
	}
	for i, ts := range part.TsMs {
		if restricted && !d.settings.allows(part.Fleets.At(i)) {
			t.hidden++
			continue
		}
		if len(q.Fleets) > 0 && !slices.Contains(q.Fleets, part.Fleets.At(i)) {
			continue
		}
		if len(q.Filters) > 0 && !fixPasses(q.Filters, part, i) {
			continue
		}
		if t.rows != nil {
			t.rows.Add(ts, fixOf(part, i), part.Lat[i], part.Lon[i], part.SpeedKmh[i])
			continue
		}
		for j, values := range columns {
			t.series[j].Add(ts, values[i])
		}
	}
}

// fixPasses heeds filters on what a fix has beside its numbers: those of a map would cut holes into a line.
func fixPasses(filters []filter, part *cassandra.Track, i int) bool {
	return passes(filters, func(key string) (cell, bool) {
		switch key {
		case "fleet_id":
			return textCell(part.Fleets.At(i)), true
		case "zone":
			return textCell(part.Zones.At(i)), true
		}
		return cell{}, false
	})
}

func fixOf(t *cassandra.Track, i int) fix {
	return fix{
		lat: t.Lat[i], lon: t.Lon[i], speed: t.SpeedKmh[i], heading: t.HeadingDeg[i], battery: t.BatteryPct[i], temp: t.TempC[i],
		zone: t.Zones.At(i), fleet: t.Fleets.At(i),
	}
}

func columnOf(t *cassandra.Track, name string) []float64 {
	switch name {
	case "speed_kmh":
		return t.SpeedKmh
	case "battery_pct":
		return t.BatteryPct
	case "temp_c":
		return t.TempC
	case "heading_deg":
		return t.HeadingDeg
	case "lat":
		return t.Lat
	default:
		return t.Lon
	}
}

func seriesFrames(device string, t *thinned, fields []string, several bool) data.Frames {
	var frames data.Frames
	for j, name := range fields {
		points := t.series[j].Points()
		if len(points) == 0 {
			continue
		}
		times, values := make([]time.Time, len(points)), make([]float64, len(points))
		for i, p := range points {
			times[i], values[i] = time.UnixMilli(p.TsMs).UTC(), p.Value
		}
		value := field(name, data.Labels{"device_id": device}, values)
		value.Config.DisplayName = ""
		switch title := columns[name].title; {
		case !several:
			value.Config.DisplayNameFromDS = title
		case len(fields) == 1:
			value.Config.DisplayNameFromDS = device
		default:
			value.Config.DisplayNameFromDS = fmt.Sprintf("%s, %s", device, title)
		}
		frames = append(frames, series(data.NewField("time", nil, times), value))
	}
	return frames
}

// routeFrame is one vehicle's route: a layer of a map joins all points of a frame.
func (d *Datasource) routeFrame(device string, t *thinned) *data.Frame {
	rows := t.rows.Kept()
	n := len(rows)
	times, zone, fleet := make([]time.Time, n), make([]string, n), make([]string, n)
	numbers := make([][]*float64, 6)
	for j := range numbers {
		numbers[j] = make([]*float64, n)
	}
	for i, row := range rows {
		f := row.Value
		times[i], zone[i], fleet[i] = time.UnixMilli(row.TsMs).UTC(), f.zone, f.fleet
		for j, v := range []float64{f.lat, f.lon, f.speed, f.heading, f.battery, f.temp} {
			if !math.IsNaN(v) {
				numbers[j][i] = &v
			}
		}
	}
	devices := make([]string, n)
	for i := range devices {
		devices[i] = device
	}
	return table(device, data.NewField("time", nil, times), field("device_id", nil, devices),
		field("lat", nil, numbers[0]), field("lon", nil, numbers[1]), field("speed_kmh", nil, numbers[2]), field("heading_deg", nil, numbers[3]),
		field("battery_pct", nil, numbers[4]), field("temp_c", nil, numbers[5]), field("zone", nil, zone), field("fleet_id", nil, fleet))
}
