package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// hostile-tenant measures an honest fleet, first alone and then beside a hostile one. The honest fleet is the load.
const (
	honestFleet  = "chaos-hostile-tenant"
	hostileFleet = "chaos-intruder"

	aloneFor  = 30 * time.Second
	besideFor = 60 * time.Second

	tenantMemory = 512 << 20       // limit of fleet-etl in bytes, as under Docker Compose
	maxFreshness = 5 * time.Second // P99 from due to readable
	readInterval = 250 * time.Millisecond
)

// tenant is the honest fleet as its users see it. They read its records through the API, and are notified of its alerts.
type tenant struct {
	s      *scenario
	phases []*phase
	stop   func()

	mu    sync.Mutex
	seen  map[string][]sighting // by device, in order
	reads []read
}

// sighting is when a read first returned a latest position.
type sighting struct {
	at time.Time
	ms int64 // event time
}

type read struct {
	due    time.Time
	took   time.Duration // from due
	failed bool
}

// phase is a part of the scenario, and what it brought to the honest fleet.
type phase struct {
	from, to time.Time
	resent   int // requests of senders that got no response, or an error

	fresh  []time.Duration // from due to readable, of each record
	reads  []time.Duration
	failed int             // reads
	alerts []time.Duration // from the record that opens an alert to its notification
	missed int             // alerts that were not notified
}

// beHostile measures the honest fleet alone, and then beside the hostile one.
func beHostile(ctx context.Context, s *scenario) error {
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	t := &tenant{s: s, seen: map[string][]sighting{}, stop: func() { stop(); watchers.Wait() }}
	s.tenant = t
	watchers.Go(func() { paced(watching, readInterval, t.readLatest) })
	watchers.Go(func() { paced(watching, readInterval, t.readTrack) })
	if err := errors.Join(t.awaitSeen(ctx, time.Now()), t.measure(ctx, aloneFor)); err != nil {
		return err
	}
	limit := &unix.Rlimit{Cur: tenantMemory, Max: tenantMemory}
	if err := unix.Prlimit(s.etl.child.Load().Process.Pid, unix.RLIMIT_DATA, limit, nil); err != nil {
		return fmt.Errorf("limit the memory of fleet-etl: %w", err)
	}
	s.begin()
	s.intruder = newIntruder(s.etl.api)
	defer s.intruder.attack(ctx)()
	return t.measure(ctx, besideFor)
}

func (t *tenant) measure(ctx context.Context, lasts time.Duration) error {
	p := &phase{from: time.Now(), resent: -t.s.load.retries()}
	t.phases = append(t.phases, p)
	err := process.Sleep(ctx, lasts)
	p.to, p.resent = time.Now(), p.resent+t.s.load.retries()
	return err
}

// awaitSeen waits until the fleet has read the records that were due before an instant.
func (t *tenant) awaitSeen(ctx context.Context, due time.Time) error {
	ms := due.Add(-behind).UnixMilli()
	return waitFor(ctx, drainedWithin, "the honest fleet reads its records", func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		late := len(t.seen) < senders*vehiclesOfSender
		for _, seen := range t.seen {
			late = late || seen[len(seen)-1].ms < ms
		}
		return !late
	})
}

// paced calls a function at an interval. It leaves out nothing after a delay, so that slow calls count as often as fast ones.
func paced(ctx context.Context, interval time.Duration, do func(ctx context.Context, due time.Time)) {
	for due := time.Now(); process.Sleep(ctx, time.Until(due)) == nil; due = due.Add(interval) {
		do(ctx, due)
	}
}

// readLatest reads the latest positions of the fleet.
func (t *tenant) readLatest(ctx context.Context, due time.Time) {
	var latest struct {
		Items []struct {
			Device    string `json:"device_id"`
			Timestamp time.Time
		}
	}
	t.read(ctx, due, "/v1/fleets/"+honestFleet+"/latest", &latest)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, item := range latest.Items {
		ms, seen := item.Timestamp.UnixMilli(), t.seen[item.Device]
		if len(seen) == 0 || ms > seen[len(seen)-1].ms {
			t.seen[item.Device] = append(seen, sighting{time.Now(), ms})
		}
	}
}

// readTrack reads the track of one vehicle after the other, so that no cache has it.
func (t *tenant) readTrack(ctx context.Context, due time.Time) {
	vehicle := due.UnixMilli() / readInterval.Milliseconds() % (senders * vehiclesOfSender)
	t.read(ctx, due, fmt.Sprintf("/v1/devices/%s-%03d/track?from=-1h", honestFleet, vehicle), new(any))
}

func (t *tenant) read(ctx context.Context, due time.Time, path string, into any) {
	status, body, err := t.s.load.get(ctx, path)
	if ctx.Err() != nil {
		return
	}
	failed := err != nil || status != http.StatusOK || json.Unmarshal(body, into) != nil
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads = append(t.reads, read{due: due, took: time.Since(due), failed: failed})
}

// leaveTenant waits until the fleet has read all records of the phases, and restarts fleet-etl without its limit of memory.
func leaveTenant(ctx context.Context, s *scenario) error {
	t := s.tenant
	err := t.awaitSeen(ctx, time.Now())
	t.stop()
	t.count()
	if s.intruder != nil {
		s.note("%s", s.intruder)
	}
	select {
	case <-s.etl.child.Load().Done:
		return errors.Join(fmt.Errorf("fleet-etl ended: %w", cmp.Or(s.etl.child.Load().Err, errors.New("exit status 0"))), err)
	default:
	}
	return errors.Join(err, s.etl.stop(), s.etl.start())
}

// checkTenant checks what the phases brought to the honest fleet.
func checkTenant(ctx context.Context, s *scenario) error {
	errs := []error{s.tenant.countAlerts(ctx), s.intruder.learned(ctx)}
	without, with := s.tenant.phases[0], s.tenant.phases[1]
	if late := percentile(with.fresh, 99); late > maxFreshness {
		errs = append(errs, fmt.Errorf("records of the honest fleet are readable after %s (P99), more than %s", seconds(late), maxFreshness))
	}
	if with.missed > without.missed {
		errs = append(errs, fmt.Errorf("%d of %d alerts of the honest fleet were not notified", with.missed, with.missed+len(with.alerts)))
	}
	return errors.Join(errs...)
}

// phase returns the phase of an instant, or nil.
func (t *tenant) phase(at time.Time) *phase {
	for _, p := range t.phases {
		if !at.Before(p.from) && at.Before(p.to) {
			return p
		}
	}
	return nil
}

// count adds the records and reads to their phases.
func (t *tenant) count() {
	records := map[string][]record{}
	for _, r := range t.s.load.acceptedSoFar() {
		records[r.device] = append(records[r.device], r) // in order
	}
	for device, list := range records {
		t.countRecords(t.seen[device], list)
	}
	for _, r := range t.reads {
		if p := t.phase(r.due); p != nil {
			p.reads = append(p.reads, r.took)
			if r.failed {
				p.failed++
			}
		}
	}
}

// countRecords adds the records of a device to their phases. While a sender waits it makes no records; the ones due then count
// as readable with the next one.
func (t *tenant) countRecords(seen []sighting, records []record) {
	for i, r := range records {
		for len(seen) > 0 && seen[0].ms < r.ms {
			seen = seen[1:]
		}
		if len(seen) == 0 {
			return // after the phases
		}
		for due := r.due; ; due = due.Add(-tick) {
			if p := t.phase(due); p != nil {
				p.fresh = append(p.fresh, seen[0].at.Sub(due))
			}
			if i == 0 || due.Add(-tick*3/2).Before(records[i-1].due) {
				break
			}
		}
	}
}

// countAlerts compares the alerts of the fleet with the notifications.
func (t *tenant) countAlerts(ctx context.Context) error {
	if t.s.inbox == nil {
		return nil
	}
	var alerts struct {
		Items []struct {
			Device    string `json:"device_id"`
			Timestamp time.Time
		}
	}
	status, body, err := t.s.load.get(ctx, "/v1/fleets/"+honestFleet+"/alerts?limit=10000&from=-2h")
	if err = errors.Join(err, json.Unmarshal(body, &alerts)); err != nil {
		return fmt.Errorf("read the alerts of the honest fleet: status %d: %w", status, err)
	}
	notified := map[string]time.Time{}
	for _, n := range t.s.inbox.from(t.s.from) {
		key := n.Labels["device"] + n.StartsAt.UTC().String()
		if notified[key].IsZero() {
			notified[key] = n.at
		}
	}
	for _, a := range alerts.Items {
		opened := a.Timestamp.Add(behind)
		p, at := t.phase(opened), notified[a.Device+a.Timestamp.UTC().String()]
		switch {
		case p == nil:
		case at.IsZero():
			p.missed++
		default:
			p.alerts = append(p.alerts, at.Sub(opened))
		}
	}
	return nil
}

// table compares the phases.
func (t *tenant) table() string {
	if t == nil || len(t.phases) < 2 {
		return ""
	}
	without, with := t.phases[0], t.phases[1]
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s | without the hostile fleet | with it |\n|---|--:|--:|\n", t.s.load.fleet)
	row := func(name string, value func(p *phase) string) {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, value(without), value(with))
	}
	for _, of := range []struct {
		name  string
		times func(p *phase) []time.Duration
	}{
		{"record due to readable", func(p *phase) []time.Duration { return p.fresh }},
		{"read of the API", func(p *phase) []time.Duration { return p.reads }},
		{"alert due to notified", func(p *phase) []time.Duration { return p.alerts }},
	} {
		row(of.name+", P50 / P95 / P99", func(p *phase) string {
			times := of.times(p)
			return fmt.Sprintf("%.2f / %.2f / %.2f s", percentile(times, 50).Seconds(), percentile(times, 95).Seconds(), percentile(times, 99).Seconds())
		})
	}
	row("records", func(p *phase) string { return fmt.Sprint(len(p.fresh)) })
	row("requests of senders that were sent again", func(p *phase) string { return fmt.Sprint(p.resent) })
	row("reads that failed", func(p *phase) string { return fmt.Sprintf("%d of %d", p.failed, len(p.reads)) })
	row("alerts that were not notified", func(p *phase) string { return fmt.Sprintf("%d of %d", p.missed, p.missed+len(p.alerts)) })
	for _, of := range []struct {
		name string
		n    int
	}{{"missing", t.s.missing}, {"differing", t.s.differing}, {"never sent", t.s.unknown}} {
		fmt.Fprintf(&b, "| records that are %s | | %d |\n", of.name, of.n)
	}
	fmt.Fprintf(&b, "| differences that verify finds | | %d |\n", t.s.differences)
	fmt.Fprintf(&b, "| peak memory of fleet-etl | | %.0f MB |\n", float64(t.s.peakRSS)/1e6)
	return b.String()
}

// percentile returns the value that p percent of the values do not exceed, or 0 without values.
func percentile(values []time.Duration, p int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)*p+99)/100-1]
}
