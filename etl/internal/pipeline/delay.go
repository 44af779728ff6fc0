package pipeline

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	lateAfter     = 5 * time.Second  // a shorter delay meets the SLO
	delayKept     = 30 * time.Second // a delay that has ended is reported for so long, so that a scrape sees it
	maxLateFleets = 1000             // series; the fleets with the longest delays are reported
)

// delays reports the fleets whose records become durable late. It has a series only for such fleets.
type delays struct {
	desc *prometheus.Desc
	now  func() time.Time

	mu       sync.Mutex
	inFlight map[*inFlight]struct{}
	ended    map[string]endedDelay // at most maxLateFleets
}

// inFlight is a batch that is not durable yet.
type inFlight struct {
	accepted time.Time
	fleets   map[string]struct{}
}

type endedDelay struct {
	delay time.Duration
	at    time.Time
}

func newDelays(reg prometheus.Registerer, now func() time.Time) *delays {
	d := &delays{
		desc: prometheus.NewDesc("fleet_etl_ingest_delay_seconds",
			"Longest time since a record of a fleet was accepted that is not durable yet, or was not until just now. Only of fleets with a delay of more than 5 s, at most 1,000.",
			[]string{"fleet"}, nil),
		now: now, inFlight: map[*inFlight]struct{}{}, ended: map[string]endedDelay{},
	}
	reg.MustRegister(d)
	return d
}

// begin notes a batch. Call end when it is durable.
func (d *delays) begin(b *Batch) (end func()) {
	f := &inFlight{accepted: b.Accepted, fleets: map[string]struct{}{}}
	last := ""
	for i := range b.Items {
		fleet := b.Items[i].FleetID
		if fleet == last {
			continue
		}
		last = fleet
		if _, known := f.fleets[fleet]; !known && telemetry.ValidName(fleet) && !telemetry.PlatformFleet(fleet) {
			f.fleets[unique.Make(fleet).Value()] = struct{}{} // not a part of the source's text
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight[f] = struct{}{}
	return func() { d.end(f) }
}

func (d *delays) end(f *inFlight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inFlight, f)
	now := d.now()
	if now.Sub(f.accepted) <= lateAfter {
		return
	}
	d.forget(now)
	for fleet := range f.fleets {
		if _, known := d.ended[fleet]; known || len(d.ended) < maxLateFleets {
			d.ended[fleet] = endedDelay{now.Sub(f.accepted), now}
		}
	}
}

func (d *delays) forget(now time.Time) {
	maps.DeleteFunc(d.ended, func(_ string, e endedDelay) bool { return now.Sub(e.at) > delayKept })
}

// Describe implements prometheus.Collector.
func (d *delays) Describe(out chan<- *prometheus.Desc) { out <- d.desc }

// Collect implements prometheus.Collector.
func (d *delays) Collect(out chan<- prometheus.Metric) {
	late := d.late()
	fleets := slices.SortedFunc(maps.Keys(late), func(a, b string) int {
		return cmp.Or(cmp.Compare(late[b], late[a]), cmp.Compare(a, b))
	})
	for _, fleet := range fleets[:min(len(fleets), maxLateFleets)] {
		out <- prometheus.MustNewConstMetric(d.desc, prometheus.GaugeValue, late[fleet].Seconds(), fleet)
	}
}

// late returns the delays of more than lateAfter, by fleet.
func (d *delays) late() map[string]time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	d.forget(now)
	late := map[string]time.Duration{}
	for fleet, e := range d.ended {
		late[fleet] = e.delay
	}
	for f := range d.inFlight {
		delay := now.Sub(f.accepted)
		if delay <= lateAfter {
			continue
		}
		for fleet := range f.fleets {
			late[fleet] = max(late[fleet], delay)
		}
	}
	return late
}
