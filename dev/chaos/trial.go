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
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// fault is something that breaks, and what must come of it.
type fault struct {
	name, title string
	does        string // what is done, for those who read the report
	short       bool   // it needs nothing but a cluster, and little time
	needs       func(Options) error
	fix         bool // what is derived has to be derived anew afterwards

	// Alerts that people must hear of, and of whose end, and names of others that may fire as well. Vehicles' alerts always
	// may.
	must []wanted
	may  []string

	prepare func(ctx context.Context, p *platform) error // before its load begins; nil: nothing
	run     func(ctx context.Context, t *trial) error
}

// Bounds of what is waited for.
const (
	calmWithin      = 2 * time.Minute
	lingersAfter    = 20 * time.Second // what fires for longer looks back over minutes
	heardWithin     = 90 * time.Second
	recoveredWithin = 2 * time.Minute
	drainedWithin   = 2 * time.Minute
	derivedWithin   = 2 * time.Minute
)

// patience is how long something may take: the tests, among which the short form is one, share the machine.
func (p *platform) patience(within time.Duration) time.Duration { return p.or(within, 3*within) }

// mostRSS is what fleet-etl may take, in bytes, whatever happens.
const mostRSS = 256 << 20

// trial is one fault at work.
type trial struct {
	*platform
	fault
	load *load
	rng  *rand.Rand
	from int // place in the inbox

	earlier []string // alerts that still fired when it began

	injected, healed time.Time
	keptFromMs       int64 // records of before may be gone; 0: none may
	Outcome

	watched  sync.WaitGroup
	unwatch  context.CancelFunc
	mu       sync.Mutex
	growth   time.Time // when a record was last stored
	longest  time.Duration
	mostRSS  int64
	measured bool
}

// withstand has the platform go through a fault.
func (p *platform) withstand(ctx context.Context, f fault) Outcome {
	t := &trial{platform: p, fault: f, rng: newRand(p.Seed, f.name)}
	t.Outcome = Outcome{Fault: f.name, Title: f.title, Done: f.does, Result: Held}
	if f.needs != nil {
		if err := f.needs(p.Options); err != nil {
			t.Result, t.Why = Skipped, err.Error()
			return t.Outcome
		}
	}
	if f.prepare != nil {
		if err := f.prepare(ctx, p); err != nil {
			t.Result, t.Why = Failed, err.Error()
			return t.Outcome
		}
	}
	p.printf("%-18s begins\n", f.name)
	if err := t.all(ctx); err != nil {
		t.Result, t.Why = Failed, err.Error()
	}
	return t.Outcome
}

func (t *trial) all(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of the senders, when it goes wrong
	if t.hooks != nil {
		if err := t.calm(ctx); err != nil {
			return err
		}
		t.from = t.hooks.now()
	}
	t.load = newLoad("chaos-"+t.name, func() string { return t.api })
	t.load.start(ctx)
	t.observe(ctx)
	defer t.stopObserving()
	if err := process.Sleep(ctx, t.or(4*time.Second, 2*time.Second)); err != nil {
		return err
	}
	if err := t.fault.run(ctx, t); err != nil {
		return err
	}
	if t.injected.IsZero() || t.healed.IsZero() {
		return errors.New("the fault was never injected or never healed")
	}
	if err := t.recovers(ctx); err != nil {
		return err
	}
	t.Ingest, t.Storing = t.load.longestGap().Seconds(), t.longestStoring().Seconds()
	if err := t.load.stop(ctx); err != nil {
		return err
	}
	stopped := time.Now()
	err = errors.Join(t.checkStored(ctx), t.checkDerived(ctx, stopped), t.checkAlerts(ctx))
	t.stopObserving()
	t.PeakRSS = t.mostRSS
	if t.PeakRSS > mostRSS {
		err = errors.Join(err, fmt.Errorf("fleet-etl took %d MB, more than %d MB", t.PeakRSS>>20, mostRSS>>20))
	}
	return err
}

// or is how long something takes in the long form and in the short one.
func (p *platform) or(long, short time.Duration) time.Duration {
	if p.Short {
		return short
	}
	return long
}

// inject breaks something, and begins to measure.
func (t *trial) inject(how string, do func() error) error {
	t.printf("%-18s %s\n", t.name, how)
	t.load.measure()
	t.mu.Lock()
	t.growth, t.longest, t.measured = time.Now(), 0, true
	t.mu.Unlock()
	t.injected = time.Now()
	t.Injected = t.injected.UTC()
	if err := do(); err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	return nil
}

// heal takes the cause away. All that the platform does from then on is its own doing.
func (t *trial) heal(how string, do func() error) error {
	t.printf("%-18s %s\n", t.name, how)
	t.healed = time.Now()
	t.Lasted = t.healed.Sub(t.injected).Seconds()
	if err := do(); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

// hear waits until people have heard of all that they must hear of, and at least so long.
func (t *trial) hear(ctx context.Context, atLeast time.Duration) error {
	if t.hooks != nil && len(t.must) > 0 {
		for _, w := range t.must {
			err := within(ctx, heardWithin, "people hear of "+string(w), func() bool { _, heard := t.hooks.first(t.from, "firing", w); return heard })
			if err != nil {
				return err
			}
		}
		t.Detected = time.Since(t.injected).Seconds()
	}
	return process.Sleep(ctx, time.Until(t.injected.Add(atLeast)))
}

// recovers waits until all flows as before.
func (t *trial) recovers(ctx context.Context) error {
	healed := float64(t.healed.UnixMilli()) / 1e3
	err := within(ctx, t.patience(recoveredWithin), "all flows again", func() bool {
		return t.metric("fleet_etl_canary_last_seen_timestamp_seconds") > healed && t.metric("fleet_etl_store_up") == 1 &&
			t.metric("fleet_etl_spool_oldest_seconds") < 2 && t.load.flows()
	})
	t.Recovered = time.Since(t.healed).Seconds()
	return err
}

// flows says whether senders have answers.
func (l *load) flows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.answered) < time.Second
}

// observe looks at fleet-etl four times a second: what it stores, and what memory it takes.
func (t *trial) observe(ctx context.Context) {
	ctx, t.unwatch = context.WithCancel(ctx)
	if c := t.child(); c != nil {
		resetPeak(c.Process.Pid)
	}
	t.watched.Go(func() {
		before := -1.0
		for process.Sleep(ctx, 250*time.Millisecond) == nil {
			if c := t.child(); c != nil {
				t.mostRSS = max(t.mostRSS, peakRSS(c.Process.Pid))
			}
			stored := t.metric("fleet_etl_records_written_total", `"telemetry_by_device_day"`)
			now := time.Now()
			t.mu.Lock()
			if stored > 0 && stored != before { // less than before: it is another process
				if t.measured {
					t.longest = max(t.longest, now.Sub(t.growth))
				}
				t.growth, before = now, stored
			}
			t.mu.Unlock()
		}
	})
}

func (t *trial) stopObserving() {
	t.unwatch()
	t.watched.Wait()
}

func (t *trial) longestStoring() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.longest
}

// peakRSS is the most memory that a process ever had in bytes; 0 when it has ended.
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

// resetPeak forgets the most memory that a process had, as proc(5) tells of clear_refs. Where that can't be done, the peak is that
// of its whole life.
func resetPeak(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// note adds a figure of the fault's own.
func (t *trial) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
	t.printf("%-18s %s\n", t.name, t.Notes[len(t.Notes)-1])
}

// always are the alerts that may fire in any fault: what vehicles do, the watchdog, and that nobody sends, as it is between two faults.
var always = []string{"FleetVehicleSpeedLimit", "FleetWatchdog", "FleetSourceSilent"}

// checkAlerts sees that people heard of what they had to, then of its end, and of nothing else.
func (t *trial) checkAlerts(ctx context.Context) error {
	if t.hooks == nil {
		return nil
	}
	var errs []error
	allowed := slices.Concat(always, t.may, t.earlier)
	for _, w := range t.must {
		allowed = append(allowed, w.name())
		first, heard := t.hooks.first(t.from, "firing", w)
		if !heard {
			errs = append(errs, fmt.Errorf("people never heard of %s", w))
			continue
		}
		var over time.Time
		err := within(ctx, heardWithin, fmt.Sprintf("people hear that %s is over", w), func() (resolved bool) {
			var status string
			status, over = t.hooks.last(t.from, w)
			return status == "resolved"
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.Alerts = append(t.Alerts, fmt.Sprintf("%s told after %.1f s, over %.1f s after the cause", w, first.at.Sub(t.injected).Seconds(), over.Sub(t.healed).Seconds()))
		t.Resolved = max(t.Resolved, over.Sub(t.healed).Seconds())
	}
	for _, name := range t.hooks.names(t.from) {
		if !slices.Contains(allowed, name) {
			errs = append(errs, fmt.Errorf("people heard of %s, which is not so", name))
		} else if slices.Contains(t.may, name) {
			t.Alerts = append(t.Alerts, name)
		}
	}
	return errors.Join(errs...)
}

// isRoot is what faults need that mount or make networks.
func isRoot() bool { return syscall.Geteuid() == 0 }
