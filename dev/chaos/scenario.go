package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// The forms of the suite that a fault is in. A fault in none of them runs if Options.Only names it.
const (
	inShort = 1 << iota // needs nothing but a cluster, and little time
	inLong
)

// fault is something that breaks, and its expected consequences.
type fault struct {
	name, title string
	injects     string // what happens, for the report
	forms       int
	needs       func(Options) error // nil: nothing
	repair      bool                // verify --fix follows the fault

	expected []alert  // must fire and resolve
	allowed  []string // names of further alerts that may fire

	run func(ctx context.Context, s *scenario) error
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
func (p *platform) timeout(d time.Duration) time.Duration { return p.or(d, 3*d) }

// or returns the value for the long or the short form.
func (p *platform) or(long, short time.Duration) time.Duration {
	if p.Short {
		return short
	}
	return long
}

// maxRSS bounds the memory of fleet-etl in bytes during any fault.
const maxRSS = 256 << 20

// scenario is one injection of a fault, with its load and its outcome.
type scenario struct {
	*platform
	fault
	Outcome
	load *load
	rng  *rand.Rand
	from int // index in the inbox

	lingering []string // alerts that still fired at the start

	injected, healed time.Time
	keptFromMs       int64 // earlier records may be gone; 0: none

	observer     sync.WaitGroup
	stopObserver context.CancelFunc
	peakRSS      int64 // of the observer

	mu          sync.Mutex
	storedAt    time.Time // of the latest stored record
	longestIdle time.Duration
	measuring   bool
}

// inject runs one fault.
func (p *platform) inject(ctx context.Context, f fault) Outcome {
	s := &scenario{platform: p, fault: f, rng: newRand(p.Seed, f.name)}
	s.Outcome = Outcome{Fault: f.name, Title: f.title, Done: f.injects, Result: Held}
	if f.needs != nil {
		if err := f.needs(p.Options); err != nil {
			s.Result, s.Why = Skipped, err.Error()
			return s.Outcome
		}
	}
	p.printf("%-18s starts\n", f.name)
	if err := s.run(ctx); err != nil {
		s.Result, s.Why = Failed, err.Error()
	}
	return s.Outcome
}

func (s *scenario) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the senders after a failure
	if s.inbox != nil {
		if err := s.awaitCalm(ctx); err != nil {
			return err
		}
		s.from = s.inbox.len()
	}
	s.load = newLoad("chaos-"+s.name, s.etl.api)
	s.load.start(ctx)
	s.observe(ctx)
	defer s.endObserver()
	if err := process.Sleep(ctx, s.or(4*time.Second, 2*time.Second)); err != nil {
		return err
	}
	if err := s.fault.run(ctx, s); err != nil {
		return err
	}
	if s.injected.IsZero() || s.healed.IsZero() {
		return errors.New("the fault was not injected or not healed")
	}
	if err := s.awaitRecovery(ctx); err != nil {
		return err
	}
	s.Ingest, s.Storing = s.load.longestGap().Seconds(), s.storingGap().Seconds()
	if err := s.load.stop(ctx); err != nil {
		return err
	}
	stopped := time.Now()
	err = errors.Join(s.checkStored(ctx), s.checkDerived(ctx, stopped), s.checkAlerts(ctx))
	s.endObserver()
	s.PeakRSS = s.peakRSS
	if s.PeakRSS > maxRSS {
		err = errors.Join(err, fmt.Errorf("fleet-etl used %d MB, more than %d MB", s.PeakRSS>>20, maxRSS>>20))
	}
	return err
}

// breakIt injects the fault and starts the measurements.
func (s *scenario) breakIt(how string, do func() error) error {
	s.printf("%-18s %s\n", s.name, how)
	s.load.resetGap()
	s.mu.Lock()
	s.storedAt, s.longestIdle, s.measuring = time.Now(), 0, true
	s.mu.Unlock()
	s.injected = time.Now()
	s.Injected = s.injected.UTC()
	if err := do(); err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	return nil
}

// heal removes the cause. From then on the platform recovers without help.
func (s *scenario) heal(how string, do func() error) error {
	s.printf("%-18s %s\n", s.name, how)
	s.healed = time.Now()
	s.Lasted = s.healed.Sub(s.injected).Seconds()
	if err := do(); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

// awaitAlerts waits until all expected alerts have fired, and at least for a duration since the injection.
func (s *scenario) awaitAlerts(ctx context.Context, atLeast time.Duration) error {
	if s.inbox != nil && len(s.expected) > 0 {
		for _, a := range s.expected {
			err := waitFor(ctx, firesWithin, string(a)+" fires", func() bool {
				_, fired := s.inbox.first(s.from, "firing", a)
				return fired
			})
			if err != nil {
				return err
			}
		}
		s.Detected = time.Since(s.injected).Seconds()
	}
	return process.Sleep(ctx, time.Until(s.injected.Add(atLeast)))
}

// awaitRecovery waits until records flow as before the fault.
func (s *scenario) awaitRecovery(ctx context.Context) error {
	healed := float64(s.healed.UnixMilli()) / 1e3
	err := waitFor(ctx, s.timeout(recoveredWithin), "records flow as before", func() bool {
		return s.etl.metric("fleet_etl_canary_last_seen_timestamp_seconds") > healed && s.etl.storeUp() &&
			s.etl.metric("fleet_etl_spool_oldest_seconds") < 2 && s.load.flows()
	})
	s.Recovered = time.Since(s.healed).Seconds()
	return err
}

// observe samples the stored records and the memory of fleet-etl every 250 ms, until endObserver.
func (s *scenario) observe(ctx context.Context) {
	ctx, s.stopObserver = context.WithCancel(ctx)
	if c := s.etl.running(); c != nil {
		resetPeakRSS(c.Process.Pid)
	}
	s.observer.Go(func() {
		before := -1.0
		for process.Sleep(ctx, 250*time.Millisecond) == nil {
			if c := s.etl.running(); c != nil {
				s.peakRSS = max(s.peakRSS, peakRSS(c.Process.Pid))
			}
			stored := s.etl.metric("fleet_etl_records_written_total", `"telemetry_by_device_day"`)
			now := time.Now()
			s.mu.Lock()
			if stored > 0 && stored != before { // lower after a restart
				if s.measuring {
					s.longestIdle = max(s.longestIdle, now.Sub(s.storedAt))
				}
				s.storedAt, before = now, stored
			}
			s.mu.Unlock()
		}
	})
}

func (s *scenario) endObserver() {
	s.stopObserver()
	s.observer.Wait()
}

func (s *scenario) storingGap() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longestIdle
}

// peakRSS returns the peak memory of a process in bytes; 0 if it has ended.
func peakRSS(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kB int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kB); err == nil {
			return kB << 10
		}
	}
	return 0
}

// resetPeakRSS resets the peak memory of a process (clear_refs in proc(5)). Without permission, the peak counts from its start.
func resetPeakRSS(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// note adds a line to the outcome.
func (s *scenario) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
	s.printf("%-18s %s\n", s.name, s.Notes[len(s.Notes)-1])
}

// alwaysAllowed are the alerts of vehicles, the watchdog, and the missing senders between two faults.
var alwaysAllowed = []string{"FleetVehicleSpeedLimit", "FleetWatchdog", "FleetSourceSilent"}

// checkAlerts checks that the expected alerts fired and resolved, and that no other alert fired.
func (s *scenario) checkAlerts(ctx context.Context) error {
	if s.inbox == nil {
		return nil
	}
	var errs []error
	allowed := slices.Concat(alwaysAllowed, s.allowed, s.lingering)
	for _, a := range s.expected {
		allowed = append(allowed, a.name())
		first, fired := s.inbox.first(s.from, "firing", a)
		if !fired {
			errs = append(errs, fmt.Errorf("%s did not fire", a))
			continue
		}
		var resolved time.Time
		err := waitFor(ctx, firesWithin, string(a)+" resolves", func() bool {
			var status string
			status, resolved = s.inbox.last(s.from, a)
			return status == "resolved"
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.Alerts = append(s.Alerts, fmt.Sprintf("%s fired after %.1f s, resolved %.1f s after the cause was removed", a,
			first.at.Sub(s.injected).Seconds(), resolved.Sub(s.healed).Seconds()))
		s.Resolved = max(s.Resolved, resolved.Sub(s.healed).Seconds())
	}
	for _, name := range s.inbox.fired(s.from) {
		if !slices.Contains(allowed, name) {
			errs = append(errs, fmt.Errorf("%s fired without a reason", name))
		} else if slices.Contains(s.allowed, name) {
			s.Alerts = append(s.Alerts, name)
		}
	}
	return errors.Join(errs...)
}
