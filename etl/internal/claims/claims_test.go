package claims

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var options = Options{Heartbeat: 5 * time.Second, Lease: 10 * time.Second, FenceAfter: 20 * time.Second, MaxClockSkew: 10 * time.Second}

// slowStore delays writes of claims, and the announcement that an instance ends.
type slowStore struct {
	*fakestore.View
	claims atomic.Int64 // time.Duration
}

func (s *slowStore) ApplyDeviceClaims(ctx context.Context, rows []cassandra.Mutation[cassandra.Claim]) error {
	time.Sleep(time.Duration(s.claims.Load()))
	return s.View.ApplyDeviceClaims(ctx, rows)
}

func (s *slowStore) Heartbeat(ctx context.Context, id string, role cassandra.InstanceRole, now time.Time) error {
	if role == cassandra.RoleEnded {
		time.Sleep(rand.N(100 * time.Millisecond))
	}
	return s.View.Heartbeat(ctx, id, role, now)
}

// instance is one instance that sends heartbeats.
type instance struct {
	*Claims
	store *slowStore
	logs  *logtest.Hook
}

// newInstance returns an instance that does not send heartbeats.
func newInstance(store *fakestore.Store, role cassandra.InstanceRole) *instance {
	o := options
	o.Role = role
	logger, logs := logtest.NewNullLogger()
	reg := prometheus.NewRegistry()
	exec := executor.New(executor.Options{MaxInFlight: 64, RetryRate: 100}, logger, reg, time.Now)
	s := &slowStore{View: store.View(nil)}
	return &instance{New(o, executor.Views[Store]{Strong: s, Fallback: s}, exec, stamp.New(time.Now), logger, reg, time.Now), s, logs}
}

func startInstance(t *testing.T, store *fakestore.Store, role cassandra.InstanceRole) *instance {
	t.Helper()
	i := newInstance(store, role)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	_, err := i.Confirm(t.Context())
	require.NoError(t, err)
	return i
}

// acquire claims devices, with one record of each from a day on.
func (i *instance) acquire(t *testing.T, day cassandra.Day, ids ...string) []Acquired {
	t.Helper()
	wants := map[string]*Want{}
	for _, id := range ids {
		wants[id] = &Want{Records: 1, FromDay: day, Fleets: []string{"north"}}
	}
	acquired, err := i.Acquire(t.Context(), wants)
	require.NoError(t, err)
	slices.SortFunc(acquired, func(a, b Acquired) int { return strings.Compare(a.DeviceID, b.DeviceID) })
	return acquired
}

func (i *instance) poll(t *testing.T) Polled {
	t.Helper()
	p, err := i.Poll(t.Context(), false, func([]cassandra.FleetHour) bool { return false })
	require.NoError(t, err)
	return p
}

func (i *instance) warnings() (n int) {
	for _, e := range i.logs.AllEntries() {
		if e.Level == logrus.WarnLevel {
			n++
		}
	}
	return n
}

func (i *instance) adopted(t *testing.T) (ids []string) {
	t.Helper()
	for _, a := range i.poll(t).Adopted {
		ids = append(ids, a.DeviceID)
	}
	slices.Sort(ids)
	return ids
}

// claimed returns the devices of an instance with their first days, from the table by device. It requires the table by
// instance to say the same.
func claimed(t *testing.T, store *fakestore.Store, id string) map[string]cassandra.Day {
	t.Helper()
	byInstance, byDevice := map[string]cassandra.Day{}, map[string]cassandra.Day{}
	for _, c := range fakestore.List[cassandra.Claim](store, cassandra.TableClaimsByInstance, fakestore.KeyOf(id)) {
		byInstance[c.DeviceID] = c.FromDay
	}
	for _, c := range fakestore.List[cassandra.Claim](store, cassandra.TableClaims, "") {
		if c.InstanceID == id {
			byDevice[c.DeviceID] = c.FromDay
		}
	}
	require.Equal(t, byInstance, byDevice)
	return byDevice
}

func find(t *testing.T, store *fakestore.Store, id string) *cassandra.Instance {
	t.Helper()
	all, err := store.View(nil).Instances(t.Context())
	require.NoError(t, err)
	for i := range all {
		if all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

// sharedOf returns the shared devices that an instance has not read as shared yet.
func sharedOf(t *testing.T, store *fakestore.Store, id string) []string {
	t.Helper()
	shared, err := store.View(nil).SharedDevices(t.Context(), id)
	require.NoError(t, err)
	return shared
}

func simulated(t *testing.T, run func(t *testing.T, store *fakestore.Store)) {
	synctest.Test(t, func(t *testing.T) { run(t, fakestore.New()) })
}

// leave writes the row and the claims of an instance that has ended.
func leave(t *testing.T, store *fakestore.Store, id string, role cassandra.InstanceRole, devices ...string) {
	t.Helper()
	v := store.View(nil)
	require.NoError(t, v.Heartbeat(t.Context(), id, role, time.Now()))
	for _, device := range devices {
		row := cassandra.Mutation[cassandra.Claim]{
			Row:         cassandra.Claim{InstanceID: id, DeviceID: device, FromDay: 5, Fleets: []string{"south"}},
			WriteTimeUs: time.Now().UnixMicro(),
		}
		require.NoError(t, v.ApplyDeviceClaims(t.Context(), []cassandra.Mutation[cassandra.Claim]{row}))
		require.NoError(t, v.ApplyInstanceClaims(t.Context(), []cassandra.Mutation[cassandra.Claim]{row}))
	}
}

func TestWantsCoverTheEarliestDayAndEveryFleet(t *testing.T) {
	day := func(d cassandra.Day) int64 { return d.Time().UnixMilli() + 1 }
	records := []*telemetry.Record{
		{DeviceID: "v1", FleetID: "north", TimeMs: day(7)},
		{DeviceID: "v1", FleetID: "south", TimeMs: day(5)},
		{DeviceID: "v2", FleetID: "north", TimeMs: day(9)},
		{DeviceID: "v1", FleetID: "north", TimeMs: day(6)},
	}
	require.Equal(t, map[string]*Want{
		"v1": {Records: 3, FromDay: 5, Fleets: []string{"north", "south"}},
		"v2": {Records: 1, FromDay: 9, Fleets: []string{"north"}},
	}, WantsOf(slices.Values(records)))
}

func TestAcquireWritesClaimsBeforeItReturns(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := startInstance(t, store, cassandra.RoleStream)
		one.store.claims.Store(int64(time.Second))
		require.Equal(t, []Acquired{{DeviceID: "v1", FromDay: 7, Strong: true}, {DeviceID: "v2", FromDay: 7, Strong: true}}, one.acquire(t, 7, "v1", "v2"))
		require.Equal(t, map[string]cassandra.Day{"v1": 7, "v2": 7}, claimed(t, store, one.InstanceID()))
		require.Empty(t, one.acquire(t, 8, "v1"), "claimed before")
		require.Empty(t, one.acquire(t, 4, "v1"), "claimed before")
		require.Equal(t, map[string]cassandra.Day{"v1": 4, "v2": 7}, claimed(t, store, one.InstanceID()), "an earlier day is written")
		s, ok := one.Status("v1")
		require.True(t, ok)
		require.Equal(t, Status{FromDay: 4, Fleets: []string{"north"}, InFlight: 3}, s)
	})
}

// Two callers may claim one device at the same time. Neither stores a record before the claim is stored.
func TestConcurrentAcquireWritesTheClaimToo(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := startInstance(t, store, cassandra.RoleStream)
		one.store.claims.Store(int64(time.Second))
		go one.acquire(t, 7, "v1")
		synctest.Wait() // the first call waits for its write
		one.acquire(t, 7, "v1")
		require.Equal(t, map[string]cassandra.Day{"v1": 7}, claimed(t, store, one.InstanceID()))
		time.Sleep(time.Minute)
	})
}

func TestAcquireReportsAndNotifiesOtherHolders(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one, other := startInstance(t, store, cassandra.RoleStream), startInstance(t, store, cassandra.RoleStream)
		one.acquire(t, 7, "v1", "v2")
		require.Equal(t, []Acquired{{DeviceID: "v1", FromDay: 7, Shared: true, Strong: true}, {DeviceID: "v3", FromDay: 9, Strong: true}},
			other.acquire(t, 9, "v1", "v3"), "from the earlier day of the two")
		require.True(t, other.Applied("v1", 1))
		require.False(t, one.Applied("v1", 1), "not yet known")
		require.Equal(t, []string{"v1"}, sharedOf(t, store, one.InstanceID()))
		require.Equal(t, []string{"v1"}, one.poll(t).Shared)
		require.Empty(t, sharedOf(t, store, one.InstanceID()), "acknowledged")
		for id, shared := range map[string]bool{"v1": true, "v2": false} {
			s, _ := one.Status(id)
			require.Equal(t, shared, s.Shared, id)
		}
	})
}

func TestDeviceIsSharedUntilItIsAloneForTheClockDifference(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		leave(t, store, "other", cassandra.RoleStream, "v1")
		one := startInstance(t, store, cassandra.RoleStream)
		one.acquire(t, 7, "v1")
		shared := func() bool { s, _ := one.Status("v1"); return s.Shared }
		at := time.Now()
		for _, step := range []struct {
			after  time.Duration
			others bool
			shared bool
		}{{0, false, true}, {9 * time.Second, false, true}, {9500 * time.Millisecond, true, true}, {11 * time.Second, false, true}, {21 * time.Second, false, false}} {
			one.NoteOthers("v1", step.others, at.Add(step.after))
			require.Equal(t, step.shared, shared(), step.after)
		}
	})
}

func TestNothingIsAcquiredWithoutAHeartbeat(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := newInstance(store, cassandra.RoleStream) // without Run
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := one.Acquire(ctx, map[string]*Want{"v1": {Records: 1}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Empty(t, store.Cells(cassandra.TableClaims))
		_, held := one.Status("v1")
		require.False(t, held)
	})
}

func TestLeaseEndsWithoutHeartbeats(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := startInstance(t, store, cassandra.RoleStream)
		lease, err := one.Confirm(t.Context())
		require.NoError(t, err)
		began := time.Now()
		one.store.Pause(time.Minute)
		time.Sleep(options.Lease)
		require.NoError(t, lease.Check(t.Context()), "the lease still holds")
		require.Equal(t, options.Lease, time.Since(began))
		time.Sleep(time.Millisecond)
		require.NoError(t, lease.Check(t.Context()), "it was not fenced")
		require.Equal(t, time.Minute, time.Since(began), "not before a heartbeat succeeds again")
		require.Zero(t, one.Epoch())
		require.Zero(t, one.warnings())
	})
}

func TestFencedInstanceClaimsItsDevicesAgain(t *testing.T) {
	for name, fence := range map[string]func(v *fakestore.View, id string) error{
		"fenced":      func(v *fakestore.View, id string) error { return v.FenceInstance(context.Background(), id) },
		"row removed": func(v *fakestore.View, id string) error { return v.RemoveInstance(context.Background(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				one := startInstance(t, store, cassandra.RoleStream)
				one.acquire(t, 7, "v1", "v2")
				one.acquire(t, 4, "v1") // a late record
				before := one.InstanceID()
				lease, err := one.Confirm(t.Context())
				require.NoError(t, err)
				one.store.claims.Store(int64(3 * time.Second))
				require.NoError(t, fence(store.View(nil), before))
				for one.InstanceID() == before {
					time.Sleep(100 * time.Millisecond)
				}
				want := map[string]cassandra.Day{"v1": 4, "v2": 7}
				require.Zero(t, one.Epoch(), "the devices are not claimed again yet")
				require.Len(t, store.Cells(cassandra.TableClaims), 2, "of the old ID")
				_, err = one.Confirm(t.Context())
				require.NoError(t, err)
				require.Equal(t, want, claimed(t, store, one.InstanceID()), "claimed before the lease is confirmed")
				require.Equal(t, want, claimed(t, store, before), "the old claims stay")
				require.ErrorIs(t, lease.Check(t.Context()), ErrFenced)
				require.Equal(t, int64(1), one.Epoch())
				require.Equal(t, 1.0, testutil.ToFloat64(one.fenced))
				require.Equal(t, 1, one.warnings())
				require.Equal(t, cassandra.RoleStream, find(t, store, one.InstanceID()).Role)
				s, _ := one.Status("v1")
				require.Equal(t, Status{FromDay: 4, Fleets: []string{"north"}, InFlight: 2, Adopted: true}, s, "its own old claims do not share the device")

				time.Sleep(time.Minute)
				require.Equal(t, int64(1), one.Epoch(), "once")
				require.Equal(t, 1, one.warnings())
				one.Applied("v2", 1)
				r, ok := one.BeginRelease("v2")
				require.True(t, ok)
				require.NoError(t, one.FinishRelease(t.Context(), []Release{r}))
				for _, id := range []string{before, one.InstanceID()} {
					require.Equal(t, map[string]cassandra.Day{"v1": 4}, claimed(t, store, id), "the release deletes the claims of every epoch")
				}
			})
		})
	}
}

// Writes that wait for the lease hold every place among the writes in flight. The claims come first all the same.
func TestReclaimDoesNotWaitForWritesThatWaitForTheLease(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := startInstance(t, store, cassandra.RoleStream)
		one.acquire(t, 7, "v1")
		lease, err := one.Confirm(t.Context())
		require.NoError(t, err)
		one.store.Pause(time.Minute)
		time.Sleep(2 * options.Lease)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		errs := make(chan error, 100)
		for range cap(errs) {
			go func() { errs <- one.exec.Write(ctx, "t", 1, lease.Check) }()
		}
		require.NoError(t, store.View(nil).FenceInstance(t.Context(), one.InstanceID()))
		began := time.Now()
		for range cap(errs) {
			require.ErrorIs(t, <-errs, ErrFenced)
		}
		require.Less(t, time.Since(began), 2*time.Minute)
		require.Equal(t, map[string]cassandra.Day{"v1": 7}, claimed(t, store, one.InstanceID()))
	})
}

func TestInstanceFencedAgainWhileItReclaims(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := startInstance(t, store, cassandra.RoleStream)
		one.acquire(t, 7, "v1")
		ids := []string{one.InstanceID()}
		one.store.claims.Store(int64(8 * time.Second)) // longer than a heartbeat
		for range 2 {
			require.NoError(t, store.View(nil).FenceInstance(t.Context(), ids[len(ids)-1]))
			for one.InstanceID() == ids[len(ids)-1] {
				time.Sleep(100 * time.Millisecond)
			}
			ids = append(ids, one.InstanceID())
			time.Sleep(100 * time.Millisecond) // the second claim is in progress
		}
		_, err := one.Confirm(t.Context())
		require.NoError(t, err)
		require.Equal(t, ids[2], one.InstanceID())
		require.Equal(t, map[string]cassandra.Day{"v1": 7}, claimed(t, store, ids[2]))
		require.Equal(t, int64(1), one.Epoch())
	})
}

func TestSilentInstanceIsFencedAndThenTakenOver(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"same clock": 0, "its clock is ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				leave(t, store, "silent", cassandra.RoleStream, "v1")
				store.SetHeartbeat("silent", time.Now().Add(ahead))
				other := startInstance(t, store, cassandra.RoleStream)
				silentFrom := time.Now()
				for !find(t, store, "silent").Fenced {
					require.Empty(t, other.adopted(t))
					time.Sleep(time.Second)
				}
				fenced := time.Since(silentFrom)
				require.Greater(t, fenced, options.FenceAfter)
				require.LessOrEqual(t, fenced, options.FenceAfter+2*time.Second)
				fencedAt := time.Now()
				for {
					if ids := other.adopted(t); ids != nil {
						require.Equal(t, []string{"v1"}, ids)
						break
					}
					time.Sleep(time.Second)
				}
				require.GreaterOrEqual(t, time.Since(fencedAt), options.Lease)
				require.LessOrEqual(t, time.Since(fencedAt), options.Lease+2*time.Second)
				require.Equal(t, map[string]cassandra.Day{"v1": 5}, claimed(t, store, other.InstanceID()), "from the day of the silent instance")
				require.Equal(t, map[string]cassandra.Day{"v1": 5}, claimed(t, store, "silent"), "until its rows are derived")
				require.Equal(t, 1.0, testutil.ToFloat64(other.takenOver))
				require.Empty(t, other.adopted(t), "once")
			})
		})
	}
}

// A claim is released although the clock of the instance that wrote it was ahead.
func TestClaimFromAFastClockIsReleased(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		leave(t, store, "ended", cassandra.RoleEnded, "v1")
		late := []cassandra.Mutation[cassandra.Claim]{{
			Row: cassandra.Claim{InstanceID: "ended", DeviceID: "v1", FromDay: 5}, WriteTimeUs: time.Now().Add(time.Hour).UnixMicro(),
		}}
		require.NoError(t, store.View(nil).ApplyDeviceClaims(t.Context(), late))
		require.NoError(t, store.View(nil).ApplyInstanceClaims(t.Context(), late))
		one := startInstance(t, store, cassandra.RoleStream)
		require.Equal(t, []string{"v1"}, one.adopted(t))
		one.Applied("v1", 1)
		release, ok := one.BeginRelease("v1")
		require.True(t, ok)
		require.NoError(t, one.FinishRelease(t.Context(), []Release{release}))
		require.Empty(t, claimed(t, store, "ended"))
		require.Empty(t, one.adopted(t))
		require.Nil(t, find(t, store, "ended"), "it holds no claims")
	})
}

// The clock of an instance may be behind by the largest expected difference.
func TestInstanceWithASlowClockIsNotFenced(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		leave(t, store, "slow", cassandra.RoleStream, "v1")
		one := startInstance(t, store, cassandra.RoleStream)
		for range 60 {
			store.SetHeartbeat("slow", time.Now().Add(-options.MaxClockSkew))
			time.Sleep(options.FenceAfter - time.Second)
			require.Empty(t, newInstance(store, cassandra.RoleStream).adopted(t), "an instance that sees it for the first time")
			require.Empty(t, one.adopted(t))
		}
		require.False(t, find(t, store, "slow").Fenced)
	})
}

func TestTakeoverOfAHeldDeviceKeepsTheEarliestDay(t *testing.T) {
	for name, day := range map[string]cassandra.Day{"held from an earlier day": 3, "held from a later day": 9} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				one := startInstance(t, store, cassandra.RoleStream)
				one.acquire(t, day, "v1")
				leave(t, store, "ended", cassandra.RoleEnded, "v1") // from day 5
				require.Equal(t, []string{"v1"}, one.adopted(t))
				s, _ := one.Status("v1")
				slices.Sort(s.Fleets)
				require.Equal(t, Status{FromDay: min(day, 5), Fleets: []string{"north", "south"}, InFlight: 2, Adopted: true}, s, "it is not shared with an ended instance")
				require.Equal(t, map[string]cassandra.Day{"v1": min(day, 5)}, claimed(t, store, one.InstanceID()))
			})
		})
	}
}

func TestRunningInstanceIsNotFenced(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one, other := startInstance(t, store, cassandra.RoleStream), startInstance(t, store, cassandra.RoleStream)
		one.acquire(t, 7, "v1")
		for range 600 {
			require.Empty(t, other.adopted(t))
			time.Sleep(time.Second)
		}
		require.False(t, find(t, store, one.InstanceID()).Fenced)
		require.Equal(t, 2.0, testutil.ToFloat64(other.running))
		require.True(t, other.Peers())
		one.poll(t)
		require.NotEqual(t, one.Leads(), other.Leads(), "one instance looks after silent devices")
	})
}

// exitedID returns the ID of an instance whose process ran on this machine and has exited.
func exitedID(t *testing.T) string {
	process := exec.CommandContext(t.Context(), "true")
	require.NoError(t, process.Run())
	parts := strings.Split(newInstanceID(), "~")
	if parts[1] == "" {
		t.Skip("this machine does not name its boot")
	}
	parts[2] = fmt.Sprint(process.Process.Pid)
	return strings.Join(parts, "~")
}

func TestEndedInstanceIsTakenOverAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		id   string
		role cassandra.InstanceRole
	}{
		"ended":                       {"ended", cassandra.RoleEnded},
		"exited without announcement": {exitedID(t), cassandra.RoleStream},
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				leave(t, store, c.id, c.role, "v1", "v2")
				one := startInstance(t, store, cassandra.RoleStream)
				p := one.poll(t)
				require.Len(t, p.Adopted, 2)
				require.True(t, p.Waiting)
				s, _ := one.Status("v1")
				require.Equal(t, Status{FromDay: 5, Fleets: []string{"south"}, InFlight: 1, Adopted: true}, s, "with the fleets of the other's claim")
				var releases []Release
				for _, a := range p.Adopted {
					require.False(t, a.Shared)
					one.Applied(a.DeviceID, 1)
					r, ok := one.BeginRelease(a.DeviceID)
					require.True(t, ok)
					releases = append(releases, r)
				}
				require.NotNil(t, find(t, store, c.id), "while it holds claims")
				require.NoError(t, one.FinishRelease(t.Context(), releases))
				require.Empty(t, claimed(t, store, c.id))
				require.Empty(t, one.adopted(t))
				require.Nil(t, find(t, store, c.id), "removed after its last claim")
			})
		})
	}
}

func TestTakeoverIsBounded(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		var ids []string
		for i := range adoptAtOnce + 500 {
			ids = append(ids, fmt.Sprintf("v%05d", i))
		}
		leave(t, store, "ended", cassandra.RoleEnded, ids...)
		one := startInstance(t, store, cassandra.RoleStream)
		first, second := one.adopted(t), one.adopted(t)
		require.Len(t, first, adoptAtOnce)
		require.Len(t, second, 500)
		all := slices.Concat(first, second)
		slices.Sort(all)
		require.Equal(t, ids, all)
	})
}

func TestHoursOfAnEndedInstanceAreSummedBeforeItIsRemoved(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one, other := startInstance(t, store, cassandra.RoleStream), startInstance(t, store, cassandra.RoleStream)
		hours := []cassandra.FleetHour{{FleetID: "north", HourMs: 3_600_000}}
		require.NoError(t, one.LeaveHours(t.Context(), hours))
		left, err := one.Leave(t.Context())
		require.NoError(t, err)
		require.True(t, left)
		summed := false
		poll := func() Polled {
			p, err := other.Poll(t.Context(), false, func(asked []cassandra.FleetHour) bool {
				require.Equal(t, hours, asked)
				return summed
			})
			require.NoError(t, err)
			return p
		}
		p := poll()
		require.Equal(t, hours, p.Hours)
		require.True(t, p.Waiting)
		require.Empty(t, poll().Hours, "once")
		require.NotNil(t, find(t, store, one.InstanceID()))
		summed = true
		require.False(t, poll().Waiting)
		require.Nil(t, find(t, store, one.InstanceID()))
	})
}

func TestReleaseWaitsForRecordsInFlight(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := startInstance(t, store, cassandra.RoleStream)
		_, ok := one.BeginRelease("v1")
		require.False(t, ok, "not claimed")
		one.acquire(t, 7, "v1")
		one.acquire(t, 7, "v1")
		one.Applied("v1", 1)
		_, ok = one.BeginRelease("v1")
		require.False(t, ok, "one record is in flight")
		one.Applied("v1", 1)
		r, ok := one.BeginRelease("v1")
		require.True(t, ok)
		require.Equal(t, []string{"north"}, r.Fleets)
		require.NoError(t, one.FinishRelease(t.Context(), []Release{r}))
		require.Empty(t, claimed(t, store, one.InstanceID()))
	})
}

func TestAcquireWaitsForTheRelease(t *testing.T) {
	for name, finish := range map[string]func(t *testing.T, i *instance, r Release){
		"finished": func(t *testing.T, i *instance, r Release) {
			require.NoError(t, i.FinishRelease(t.Context(), []Release{r}))
		},
		"aborted": func(_ *testing.T, i *instance, r Release) { i.AbortRelease([]Release{r}) },
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				one := startInstance(t, store, cassandra.RoleStream)
				one.acquire(t, 7, "v1")
				one.Applied("v1", 1)
				r, ok := one.BeginRelease("v1")
				require.True(t, ok)
				acquired := make(chan []Acquired, 1)
				go func() { acquired <- one.acquire(t, 9, "v1") }()
				time.Sleep(time.Minute)
				require.Empty(t, acquired, "while the claim is being deleted")
				finish(t, one, r)
				require.Equal(t, []Acquired{{DeviceID: "v1", FromDay: 9, Strong: true}}, <-acquired)
				require.Equal(t, map[string]cassandra.Day{"v1": 9}, claimed(t, store, one.InstanceID()), "the deletion does not delete the new claim")
			})
		})
	}
}

func TestBatchInstanceLeavesItsDevicesToAStreamInstance(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		batch := startInstance(t, store, cassandra.RoleBatch)
		batch.acquire(t, 7, "v1")
		batch.poll(t)
		require.False(t, batch.Successor())
		leave(t, store, "fenced", cassandra.RoleStream)
		require.NoError(t, store.View(nil).FenceInstance(t.Context(), "fenced"))
		left, err := batch.Leave(t.Context())
		require.NoError(t, err)
		require.False(t, left, "no other instance runs")
		require.Equal(t, cassandra.RoleBatch, find(t, store, batch.InstanceID()).Role)

		stream := startInstance(t, store, cassandra.RoleStream)
		leave(t, store, "ended", cassandra.RoleEnded, "v2")
		require.Empty(t, batch.adopted(t), "the stream instance takes these over")
		require.True(t, batch.Successor())
		left, err = batch.Leave(t.Context())
		require.NoError(t, err)
		require.True(t, left)
		require.Equal(t, []string{"v1", "v2"}, stream.adopted(t))
		require.False(t, stream.Successor(), "the batch instance accepts nothing")
	})
}

func TestStoppingInstanceAcceptsNothing(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one, other := startInstance(t, store, cassandra.RoleStream), startInstance(t, store, cassandra.RoleStream)
		other.poll(t)
		require.True(t, other.Successor())
		require.NoError(t, one.StopAccepting(t.Context()))
		require.Equal(t, cassandra.RoleBatch, find(t, store, one.InstanceID()).Role)
		other.poll(t)
		require.False(t, other.Successor())
		left, err := other.Leave(t.Context())
		require.NoError(t, err)
		require.False(t, left)
	})
}

// A silent instance may have crashed.
func TestNothingIsLeftToASilentInstance(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		leave(t, store, "silent", cassandra.RoleStream)
		one := startInstance(t, store, cassandra.RoleBatch)
		one.poll(t)
		require.True(t, one.Successor())
		time.Sleep(2*options.Heartbeat + time.Second)
		one.poll(t)
		require.False(t, one.Successor())
	})
}

func TestOneOfTwoInstancesThatEndTogetherStays(t *testing.T) {
	for range 50 {
		simulated(t, func(t *testing.T, store *fakestore.Store) {
			one, other := startInstance(t, store, cassandra.RoleStream), startInstance(t, store, cassandra.RoleStream)
			end := func(i *instance) bool {
				time.Sleep(rand.N(100 * time.Millisecond))
				left, err := i.Leave(t.Context())
				require.NoError(t, err)
				return left
			}
			left := make(chan bool, 1)
			go func() { left <- end(one) }()
			here := end(other)
			require.False(t, <-left && here, "neither would take over what the other left")
		})
	}
}

func TestRemoveDeletesTheRow(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one := newInstance(store, cassandra.RoleBatch)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- one.Run(ctx) }()
		_, err := one.Confirm(t.Context())
		require.NoError(t, err)
		cancel()
		require.NoError(t, <-ended)
		require.NotNil(t, find(t, store, one.InstanceID()))
		require.NoError(t, one.Remove(t.Context()))
		require.Nil(t, find(t, store, one.InstanceID()))
	})
}

// A node that was down when a claim was deleted may bring it back once its tombstone is dropped. The instance is gone by then.
func TestClaimThatComesBackDoesNotCount(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		leave(t, store, "gone", cassandra.RoleStream, "v1", "v2")
		require.NoError(t, store.View(nil).RemoveInstance(t.Context(), "gone"))
		leave(t, store, "running", cassandra.RoleStream, "v2")
		one := startInstance(t, store, cassandra.RoleStream)
		require.Equal(t, []Acquired{{DeviceID: "v1", FromDay: 7, Strong: true}, {DeviceID: "v2", FromDay: 5, Shared: true, Strong: true}}, one.acquire(t, 7, "v1", "v2"))
		require.Nil(t, find(t, store, "gone"), "it is not notified")
		var left []string
		for _, c := range fakestore.List[cassandra.Claim](store, cassandra.TableClaims, "") {
			if c.InstanceID != one.InstanceID() {
				left = append(left, c.InstanceID+" "+c.DeviceID)
			}
		}
		require.Equal(t, []string{"running v2"}, left, "it is deleted again")
	})
}

// unreadable is a store in which some claims can't be read.
type unreadable struct {
	*slowStore
	device, instance string
	reason           cassandra.Reason
}

func (s *unreadable) ClaimsOfDevices(ctx context.Context, ids ...string) ([]cassandra.Claim, error) {
	if slices.Contains(ids, s.device) {
		return nil, &cassandra.Error{Op: "read claims", Reason: s.reason, Err: errors.New("bad row")}
	}
	return s.slowStore.ClaimsOfDevices(ctx, ids...)
}

func (s *unreadable) Leftovers(ctx context.Context, id string) ([]cassandra.Claim, []cassandra.FleetHour, error) {
	if id == s.instance {
		return nil, nil, &cassandra.Error{Op: "read claims", Reason: s.reason, Err: errors.New("bad row")}
	}
	return s.slowStore.Leftovers(ctx, id)
}

func TestClaimsThatCannotBeReadCostOnlyTheirDevices(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonFailure, cassandra.ReasonOther} {
		t.Run(string(reason), func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				leave(t, store, "bad", cassandra.RoleEnded, "v1")
				leave(t, store, "good", cassandra.RoleEnded, "v2")
				leave(t, store, "running", cassandra.RoleStream, "v3")
				one := startInstance(t, store, cassandra.RoleStream)
				s := &unreadable{slowStore: one.store, device: "v3", instance: "bad", reason: reason}
				one.stores = executor.Views[Store]{Strong: s, Fallback: s}

				require.Equal(t, []string{"v2"}, one.adopted(t))
				require.Empty(t, one.adopted(t), "the other is skipped")
				acquired := one.acquire(t, 7, "v3", "v4")
				require.ErrorContains(t, acquired[0].Err, "bad row")
				require.Equal(t, Acquired{DeviceID: "v4", FromDay: 7, Strong: true}, acquired[1])
				status, _ := one.Status("v3")
				require.True(t, status.Unchecked)

				time.Sleep(retryAfter)
				s.device, s.instance = "", ""
				shared, err := one.Check(t.Context(), "v3")
				require.NoError(t, err)
				require.True(t, shared)
				status, _ = one.Status("v3")
				require.False(t, status.Unchecked)
				require.Equal(t, []string{"v3"}, sharedOf(t, store, "running"))
				require.Contains(t, one.adopted(t), "v1")
			})
		})
	}
}
