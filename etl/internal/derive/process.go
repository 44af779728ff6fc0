package derive

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// processID names this process: host~machine~pid~random. Where the machine can be told from others, a process that died
// on it is known to be dead at once.
func processID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s~%s~%d~%s", strings.ReplaceAll(host, "~", "-"), machine(), os.Getpid(), rand.Text()[:6])
}

// machine tells apart the places in which a process number means something: this start of this kernel, and its
// namespace of processes. Empty where that can't be told.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	h := fnv.New64a()
	_, _ = h.Write(boot)
	_, _ = h.Write([]byte(namespace))
	return strconv.FormatUint(h.Sum64(), 36)
}

// died tells whether a process is known to be dead: it ran here and does not any more.
func died(processID string) bool {
	parts := strings.Split(processID, "~")
	if len(parts) != 4 || parts[1] == "" || parts[1] != machine() {
		return false
	}
	pid, err := strconv.Atoi(parts[2])
	if err != nil || pid == os.Getpid() { // the number is ours: another of this process, as tests have them
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// sign is the last sign of life of a process: the time that it wrote, and since when this process has known of none newer.
type sign struct{ wrote, since time.Time }

// lookAround hears which devices are shared, and takes over what dead processes left. waiting tells that there is more to
// take over, or with wait set that there may be soon.
func (d *Deriver) lookAround(ctx context.Context, wait bool) (waiting bool, err error) {
	now := d.now()
	var processes []cassandra.Instance
	if _, err := d.read(ctx, cassandra.TableInstances, func(ctx context.Context, s Store) (err error) {
		processes, err = s.Instances(ctx)
		return err
	}); err != nil {
		return false, err
	}
	living, first := 0, d.process
	var dead []string
	signs := map[string]sign{}
	for _, p := range processes {
		s := d.signs[p.ID]
		if !s.wrote.Equal(p.HeartbeatAt) {
			s = sign{p.HeartbeatAt, now}
		}
		signs[p.ID] = s
		age := max(now.Sub(p.HeartbeatAt), now.Sub(s.since)) // by its clock and ours, and where its clock was ahead, by ours alone
		switch {
		case p.ID == d.process:
			living++
			if err := d.hear(ctx, p.SharedDevices); err != nil {
				return false, err
			}
		case age > d.options.ProcessDead || died(p.ID):
			dead = append(dead, p.ID)
		default:
			living++
			first = min(first, p.ID)
			waiting = waiting || wait && age > 2*beatEvery
		}
	}
	d.signs = signs
	d.metrics.processes.Set(float64(living))
	d.mu.Lock()
	d.leads = first == d.process
	d.others = len(processes) > 1 || d.others && now.Sub(d.othersAt) < 2*d.options.ProcessDead
	if len(processes) > 1 {
		d.othersAt = now
	}
	d.mu.Unlock()
	for _, id := range dead {
		more, err := d.takeOver(ctx, id)
		if err != nil {
			return false, err
		}
		waiting = waiting || more
	}
	return waiting, nil
}

// hear notes the devices that another process has met.
func (d *Deriver) hear(ctx context.Context, shared []string) error {
	if len(shared) == 0 {
		return nil
	}
	d.mu.Lock()
	for _, id := range shared {
		if v := d.devices[id]; v != nil {
			v.shared = true
			v.doubt(v.fromDay, "shared")
		}
	}
	d.mu.Unlock()
	return d.try(ctx, cassandra.TableInstances, func(ctx context.Context) error { return d.stores.Sure.AckSharedDevices(ctx, d.process, shared) })
}

// takeOver meets the devices that a dead process had marked. more tells that there is something left to do.
func (d *Deriver) takeOver(ctx context.Context, process string) (more bool, err error) {
	var marks []cassandra.Claim
	if _, err := d.read(ctx, cassandra.TableClaimsByInstance, func(ctx context.Context, s Store) (err error) {
		marks, err = s.ClaimsOfInstance(ctx, process)
		return err
	}); err != nil {
		return false, err
	}
	if len(marks) == 0 {
		d.logger.WithField("process", process).Info("a process that ended has left nothing to derive")
		return false, d.try(ctx, cassandra.TableInstances, func(ctx context.Context) error { return d.stores.Sure.RemoveInstance(ctx, process) })
	}
	adopted := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(meetsAtOnce)
	for _, m := range marks {
		if adopted == adoptAtOnce {
			break
		}
		d.mu.Lock()
		if d.releasing[m.DeviceID] != nil {
			d.mu.Unlock()
			continue
		}
		v := d.devices[m.DeviceID]
		if v != nil && slices.Contains(v.adopted, process) {
			d.mu.Unlock()
			continue
		}
		adopted++
		if v == nil {
			v = newDevice(m.DeviceID, m.FromDay, d.now())
			d.devices[m.DeviceID] = v
		}
		v.adopted = append(v.adopted, process)
		v.pending++ // until it is met, so that it is neither derived nor let go
		d.mu.Unlock()
		g.Go(func() error {
			err := d.meet(ctx, v, "taken_over")
			d.mu.Lock()
			defer d.mu.Unlock()
			v.pending--
			v.fromDay = min(v.fromDay, m.FromDay)
			v.doubt(m.FromDay, "taken_over")
			v.whole = true // it may have died between two rows of one alert
			// The dead don't write any more: it is not shared for their sake.
			delete(v.sharers, process)
			v.shared = len(v.sharers) > 0
			return err
		})
	}
	if adopted > 0 {
		d.logger.WithField("process", process).WithField("devices", adopted).Info("taking over devices of a process that ended")
	}
	return true, g.Wait()
}

// silence is a device that is not in memory.
type silence struct {
	lastMs int64 // its newest fix
	dueMs  int64 // event time at which its silence means something next
}

const never = math.MaxInt64

// rememberSilence notes when the silence of a device that is let go means something next.
func (d *Deriver) rememberSilence(v *device) {
	due, ok := d.engine.Load().Next(&v.state.Alerts)
	if !ok {
		due = never
	}
	d.silent[v.id] = silence{lastMs: v.state.Roll.LastMs(), dueMs: due}
}

// sweep looks for devices of the store that nobody has in memory and that have fallen silent, and meets them.
func (d *Deriver) sweep(ctx context.Context) error {
	now := d.now()
	if now.Sub(d.swept) >= sweepEvery {
		d.swept = now
		if err := d.listSilent(ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(meetsAtOnce)
	doubtful := d.doubtful()
	d.mu.Lock()
	var due []*device
	for id, s := range d.silent {
		if len(due) == sweepAtOnce || doubtful > sweepAtOnce {
			break // when those that were found have been derived
		}
		if s.dueMs > now.UnixMilli() || d.devices[id] != nil || d.releasing[id] != nil {
			continue
		}
		v := newDevice(id, cassandra.DayOf(s.lastMs), now.Add(-d.options.Idle))
		v.pending = 1
		d.devices[id] = v
		due = append(due, v)
		delete(d.silent, id)
	}
	d.mu.Unlock()
	for _, v := range due {
		g.Go(func() error {
			err := d.meet(ctx, v, "shared")
			d.mu.Lock()
			v.pending--
			d.mu.Unlock()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if len(due) > 0 {
		d.advance()
	}
	return nil
}

// listSilent notes the devices of all fleets that are not in memory, and when their silence means something.
func (d *Deriver) listSilent(ctx context.Context) error {
	var fleets []string
	if _, err := d.read(ctx, cassandra.TableFleets, func(ctx context.Context, s Store) (err error) {
		fleets, err = s.Fleets(ctx)
		return err
	}); err != nil {
		return err
	}
	engine := d.engine.Load()
	for _, fleet := range fleets {
		if telemetry.PlatformFleet(fleet) {
			continue
		}
		var latest []cassandra.Telemetry
		if _, err := d.read(ctx, cassandra.TableLatestByFleet, func(ctx context.Context, _ Store) (err error) {
			latest, err = d.stores.Weak.LatestOfFleet(ctx, fleet)
			return err
		}); err != nil {
			return err
		}
		d.mu.Lock()
		for _, t := range latest {
			ms := t.Ts.UnixMilli()
			if d.devices[t.DeviceID] != nil || d.silent[t.DeviceID].lastMs >= ms {
				continue
			}
			s := silence{lastMs: ms, dueMs: never}
			if after, ok := engine.OfflineAfter(fleet, t.DeviceID); ok {
				s.dueMs = ms + after.Milliseconds()
			}
			d.silent[t.DeviceID] = s
		}
		d.mu.Unlock()
	}
	return nil
}
