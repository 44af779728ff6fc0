package processor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// partition is a part of a fleet's rows in a table.
type partition struct {
	table, fleet string
	bucket       int32
}

// openAlerts is the result of the last read of a partition of open alerts.
type openAlerts struct {
	notified []telemetry.Alert
	count    map[telemetry.Severity]int
}

// OpenAlerts reads the open alerts of all fleets that receivers are to be notified of, and updates the metric of open
// alerts. A partition that can't be read is skipped for some time: its last known alerts stay, because receivers would take
// alerts that are missing for resolved. OpenAlerts is called by one goroutine.
func (p *Processor) OpenAlerts(ctx context.Context) ([]telemetry.Alert, error) {
	fleets, err := p.fleets(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	open, expires := map[partition]openAlerts{}, map[string]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readsInParallel)
	for _, fleet := range fleets {
		for bucket := range int32(cassandra.OpenAlertBuckets) {
			part := partition{cassandra.TableOpenAlerts, fleet, bucket}
			g.Go(func() error {
				var rows []cassandra.Alert
				read, err := p.readPartition(gctx, part, func(ctx context.Context) (err error) {
					rows, err = p.stores.Fallback.OpenAlertsOfBucket(ctx, fleet, bucket)
					return err
				})
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				if !read {
					open[part] = p.open[part]
					return nil
				}
				found := openAlerts{count: map[telemetry.Severity]int{}}
				for _, row := range rows {
					found.count[telemetry.Severity(row.Severity)]++
					if row.Notify {
						found.notified = append(found.notified, derived.AlertOf(row))
					}
					if row.Expiring {
						expires[row.DeviceID] = true
					}
				}
				open[part] = found
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p.open = open
	p.mu.Lock()
	p.expires = expires
	p.mu.Unlock()
	count := map[telemetry.Severity]int{}
	var notified []telemetry.Alert
	for _, part := range open {
		notified = append(notified, part.notified...)
		for severity, n := range part.count {
			count[severity] += n
		}
	}
	for _, severity := range telemetry.Severities {
		p.metrics.open.WithLabelValues(string(severity)).Set(float64(count[severity]))
	}
	return notified, nil
}

// renewOpenAlerts has devices recomputed whose open alerts expire before long: a recomputation writes them again, if they
// still hold. Devices that no instance has in memory are loaded first, by the instance that looks after silent devices.
func (p *Processor) renewOpenAlerts() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for id := range p.expires {
		if v := p.devices[id]; v != nil {
			if !v.loading && !v.recomputing && !v.failing() && v.day != 0 {
				v.markDirty(v.day, reasonExpiring)
			}
		} else if s, ok := p.silent[id]; ok && now.UnixMilli()-s.lastMs >= 2*p.options.Idle.Milliseconds() {
			s.dueMs = 0
			p.silent[id] = s
		}
	}
	p.expires = nil
}

// mustRenew reports whether an open alert of a device that is loaded is missing among the stored ones or expires before
// long. It is missing after nothing ran for longer than open alerts are stored, or because a person resolved it.
func mustRenew(state *derived.State, stored []cassandra.Alert) bool {
	for a := range state.Alerts.Open() {
		i := slices.IndexFunc(stored, func(row cassandra.Alert) bool { return derived.KeyOfRow(row) == derived.KeyOf(a) })
		if i < 0 || stored[i].Expiring {
			return true
		}
	}
	return false
}

// readPartition reads a partition of a fleet. read is false if it can't be read: then it is skipped for some time.
func (p *Processor) readPartition(ctx context.Context, part partition, request func(context.Context) error) (read bool, err error) {
	if p.unreadable.skips(part) {
		return false, nil
	}
	err = p.exec.DoWithin(ctx, executor.PartitionLimit, part.table, request)
	if err != nil && !cassandra.Permanent(err) {
		return false, err
	}
	p.unreadable.note(part, err)
	return err == nil, nil
}

// unreadable has the partitions of fleets that can't be read, and when each is tried again.
type unreadable struct {
	now    func() time.Time
	outage *ratelog.Outage

	mu    sync.Mutex
	retry map[partition]time.Time
}

func newUnreadable(logger logrus.FieldLogger, now func() time.Time) *unreadable {
	return &unreadable{now: now, retry: map[partition]time.Time{}, outage: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
		Down:  "reading rows of a fleet failed, skipping them and trying again every 5 minutes",
		Still: "reading rows of fleets still fails",
		Up:    "reading rows of fleets works again",
	})}
}

func (u *unreadable) skips(part partition) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now().Before(u.retry[part])
}

func (u *unreadable) note(part partition, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.retry[part] = u.now().Add(retryAfter)
		u.outage.Note(fmt.Errorf("fleet %s, bucket %d: %w", part.fleet, part.bucket, err))
		return
	}
	delete(u.retry, part)
	if len(u.retry) == 0 {
		u.outage.Note(nil)
	}
}

// count leaves out partitions that this instance no longer reads.
func (u *unreadable) count() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, at := range u.retry {
		if u.now().Before(at.Add(retryAfter)) {
			n++
		}
	}
	return n
}
