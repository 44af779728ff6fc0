package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/procfs"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// The forms of the suite that a fault is in. A fault in none of them runs if Options.Only names it.
const (
	inShort = 1 << iota // needs nothing but a cluster, and little time
	inLong
)

type action func(ctx context.Context, s *scenario) error

// fault is something that breaks, and its expected consequences.
type fault struct {
	name, title string
	injects     string // what happens, for the report
	forms       int
	needs       func(Options) error // nil: nothing
	repair      bool                // verify --fix follows the fault

	expected []alert  // must fire and resolve
	late     bool     // they fire after heal has begun
	allowed  []string // names of further alerts that may fire

	inject action
	lasts  time.Duration // at least, from the injection; half of it in the short form
	heal   action        // removes the cause, also after a failure; nil: nothing to remove
	check  action        // nil: nothing beyond the checks of every fault
	memory int64         // bound of the memory of fleet-etl in bytes; 0: maxRSS
}

// Bounds of the waits.
const (
	calmWithin      = 2 * time.Minute
	lingersAfter    = 20 * time.Second // alerts that fire for longer have a range of minutes
	firesWithin     = 90 * time.Second
	recoveredWithin = 2 * time.Minute
	drainedWithin   = 2 * time.Minute
	derivedWithin   = 2 * time.Minute
)

// timeout extends a bound in the short form, which shares the machine with other tests.
func (p *platform) timeout(d time.Duration) time.Duration {
	if p.Short {
		return 3 * d
	}
	return d
}

// brief shortens a time in the short form.
func (p *platform) brief(d time.Duration) time.Duration {
	if p.Short {
		return d / 2
	}
	return d
}

// maxRSS bounds the memory of fleet-etl in bytes during most faults.
const maxRSS = 256 << 20

// scenario is one injection of a fault, with its load and its outcome.
type scenario struct {
	*platform
	fault
	load *load
	rng  *rand.Rand
	from int // index in the inbox

	lingering []string // alerts that still fired at the start

	injected, healed time.Time
	keptFromMs       int64 // earlier records may be gone; 0: none
	peer             *instance
	tenant           *tenant   // of hostile-tenant
	intruder         *intruder // of hostile-tenant
	writes           gap       // between stored records

	skipped, failed error // both nil: the platform held

	lasted    time.Duration // from the injection until the cause is removed
	detected  time.Duration // from the injection until all expected alerts have fired; 0: none expected
	ingest    time.Duration // longest time without a response to any sender
	storing   time.Duration // longest time without a stored record
	recovered time.Duration // from the removal of the cause until records flow as before
	resolved  time.Duration // from the removal of the cause until all expected alerts have resolved

	acknowledged int
	stored       int
	missing      int   // acknowledged and not stored
	differing    int   // stored with other values
	unknown      int   // stored and never sent
	resent       int   // requests sent again after no response or an error
	differences  int   // that verify finds
	verified     int   // records that verify read
	peakRSS      int64 // valid when the observer has ended

	alerts []string // that fired meanwhile
	notes  []string
}

// outcome is held, or failed or skipped with the reason.
func (s *scenario) outcome() string {
	switch {
	case s.skipped != nil:
		return "skipped: " + s.skipped.Error()
	case s.failed != nil:
		return "failed: " + s.failed.Error()
	}
	return "held"
}

// test injects one fault.
func (p *platform) test(ctx context.Context, f fault) *scenario {
	s := &scenario{platform: p, fault: f, rng: rand.New(rand.NewPCG(p.Seed, uint64(crc32.ChecksumIEEE([]byte(f.name)))))}
	if f.needs != nil {
		if s.skipped = f.needs(p.Options); s.skipped != nil {
			return s
		}
	}
	p.printf("%-18s starts\n", f.name)
	s.failed = s.run(ctx)
	return s
}

func (s *scenario) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the senders after a failure
	if s.inbox != nil {
		if err := s.awaitCalm(ctx); err != nil {
			return err
		}
		s.from = len(s.inbox.from(0))
	}
	s.load = newLoad("chaos-"+s.name, s.etl.api)
	s.load.start(ctx)
	endObserver := s.observe(ctx)
	defer endObserver()
	if err := process.Sleep(ctx, s.brief(4*time.Second)); err != nil {
		return err
	}
	s.begin()
	err = s.inject(ctx, s)
	if err == nil && !s.late {
		err = s.awaitAlerts(ctx)
	}
	if err == nil {
		err = process.Sleep(ctx, time.Until(s.injected.Add(s.brief(s.lasts))))
	}
	s.healed = time.Now()
	s.lasted = s.healed.Sub(s.injected)
	s.printf("%-18s removes the cause\n", s.name)
	if s.heal != nil {
		err = errors.Join(err, s.heal(ctx, s))
	}
	if err == nil {
		err = s.awaitRecovery(ctx)
	}
	if err != nil {
		return err
	}
	_, s.ingest = s.load.responses.times()
	_, s.storing = s.writes.times()
	if err := s.load.stop(ctx); err != nil {
		return err
	}
	stopped := time.Now()
	err = errors.Join(s.checkStored(ctx), s.checkDerived(ctx, stopped), s.checkAlerts(ctx))
	endObserver()
	if s.check != nil {
		err = errors.Join(err, s.check(ctx, s))
	}
	if most := cmp.Or(s.memory, maxRSS); s.peakRSS > most {
		err = errors.Join(err, fmt.Errorf("fleet-etl used %d MB, more than %d MB", s.peakRSS>>20, most>>20))
	}
	return err
}

// begin starts the measurements. Faults that need a preparation call it again after that.
func (s *scenario) begin() {
	s.printf("%-18s injects the fault\n", s.name)
	s.load.responses.reset()
	s.writes.reset()
	s.injected = time.Now()
}

// awaitAlerts waits until all expected alerts have fired.
func (s *scenario) awaitAlerts(ctx context.Context) error {
	if s.inbox == nil || len(s.expected) == 0 {
		return nil
	}
	for _, a := range s.expected {
		err := waitFor(ctx, firesWithin, string(a)+" fires", func() bool {
			fired, _ := s.inbox.times(s.from, a)
			return !fired.IsZero()
		})
		if err != nil {
			return err
		}
	}
	s.detected = time.Since(s.injected)
	return nil
}

// awaitRecovery waits until records flow as before the fault.
func (s *scenario) awaitRecovery(ctx context.Context) error {
	healed := float64(s.healed.UnixMilli()) / 1e3
	err := waitFor(ctx, s.timeout(recoveredWithin), "records flow as before", func() bool {
		return s.etl.metric("fleet_etl_canary_last_seen_timestamp_seconds") > healed && s.etl.storeUp() &&
			s.etl.metric("fleet_etl_spool_oldest_seconds") < 2 && s.load.flows()
	})
	s.recovered = time.Since(s.healed)
	return err
}

// observe samples the stored records and the memory of fleet-etl every 250 ms, until the returned function is called.
func (s *scenario) observe(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	if c := s.etl.child.Load(); c != nil {
		resetPeakRSS(c.Process.Pid)
	}
	var observer sync.WaitGroup
	observer.Go(func() {
		before := -1.0
		for process.Sleep(ctx, 250*time.Millisecond) == nil {
			if c := s.etl.child.Load(); c != nil {
				s.peakRSS = max(s.peakRSS, peakRSS(c.Process.Pid))
			}
			stored := s.etl.metric("fleet_etl_records_written_total", `"telemetry_by_device_day"`)
			if stored > 0 && stored != before { // lower after a restart
				before = stored
				s.writes.event()
			}
		}
	})
	return func() { cancel(); observer.Wait() }
}

// peakRSS returns the peak memory of a process in bytes; 0 if it has ended.
func peakRSS(pid int) int64 {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	status, _ := p.NewStatus() // zero if it has just ended
	return int64(status.VmHWM)
}

// resetPeakRSS resets the peak memory of a process (clear_refs in proc(5)). Without permission, the peak counts from its start.
func resetPeakRSS(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// note adds a line to the outcome.
func (s *scenario) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
	s.printf("%-18s %s\n", s.name, s.notes[len(s.notes)-1])
}

// alwaysAllowed are the alerts of vehicles, the watchdog, the missing senders between two faults, and the fleets whose records wait
// during one, which is never notified.
var alwaysAllowed = []string{"FleetVehicleSpeedLimit", "FleetWatchdog", "FleetSourceSilent", "FleetIngestLate"}

func (s *scenario) awaitResolved(ctx context.Context, a alert) error {
	return waitFor(ctx, firesWithin, string(a)+" fires and resolves", func() bool {
		fired, resolved := s.inbox.times(s.from, a)
		return !fired.IsZero() && !resolved.IsZero()
	})
}

// checkAlerts checks that the expected alerts fired and resolved, and that no other alert fired.
func (s *scenario) checkAlerts(ctx context.Context) error {
	if s.inbox == nil {
		return nil
	}
	var errs []error
	allowed := slices.Concat(alwaysAllowed, s.allowed, s.lingering)
	for _, a := range s.expected {
		allowed = append(allowed, a.name())
		if err := s.awaitResolved(ctx, a); err != nil {
			errs = append(errs, err)
			continue
		}
		fired, resolved := s.inbox.times(s.from, a)
		s.alerts = append(s.alerts, fmt.Sprintf("%s fired after %.1f s, resolved %.1f s after the cause was removed", a,
			fired.Sub(s.injected).Seconds(), resolved.Sub(s.healed).Seconds()))
		s.resolved = max(s.resolved, resolved.Sub(s.healed))
	}
	for _, name := range s.inbox.fired(s.from) {
		if !slices.Contains(allowed, name) {
			errs = append(errs, fmt.Errorf("%s fired without a reason", name))
		} else if slices.Contains(s.allowed, name) {
			s.alerts = append(s.alerts, name)
		}
	}
	return errors.Join(errs...)
}
