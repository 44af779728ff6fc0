package registry

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// counting is a store that counts requests. Its transactions take some time.
type counting struct {
	Store
	reads, latest, transactions atomic.Int32
	counts                      atomic.Int32 // pages of the devices of a fleet
	now, most                   atomic.Int32 // transactions in progress
	took                        time.Duration
	countErr                    error
}

func (c *counting) Owners(ctx context.Context, ids []string) ([]cassandra.Owner, error) {
	c.reads.Add(1)
	return c.Store.Owners(ctx, ids)
}

func (c *counting) LatestWriteTimes(ctx context.Context, ids []string) ([]cassandra.WriteTimes, error) {
	c.latest.Add(1)
	return c.Store.LatestWriteTimes(ctx, ids)
}

func (c *counting) Devices(ctx context.Context, fleetID string, size int, page string) (cassandra.Page[cassandra.Device], error) {
	if c.counts.Add(1); c.countErr != nil {
		return cassandra.Page[cassandra.Device]{}, c.countErr
	}
	return c.Store.Devices(ctx, fleetID, size, page)
}

func (c *counting) SetFirstOwners(ctx context.Context, owners []cassandra.Owner) ([]cassandra.Owner, error) {
	defer c.transact()()
	return c.Store.SetFirstOwners(ctx, owners)
}

func (c *counting) MoveOwner(ctx context.Context, from, to cassandra.Owner) (cassandra.Owner, error) {
	defer c.transact()()
	return c.Store.MoveOwner(ctx, from, to)
}

func (c *counting) transact() func() {
	c.transactions.Add(1)
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	time.Sleep(c.took)
	return func() { c.now.Add(-1) }
}

// fixture is a registry that runs against a fake store. It must be made in a bubble of synctest.
type fixture struct {
	*Registry
	t      *testing.T
	db     *fakestore.Store
	store  *counting
	in     chan pipeline.ValidBatch
	out    chan pipeline.ValidBatch
	ended  chan error
	closed chan struct{}

	mu       sync.Mutex
	stored   []string
	rejected []string
}

func newFixture(t *testing.T, db *fakestore.Store, unknown Policy, change ...func(*Registry)) *fixture {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	reg := prometheus.NewPedanticRegistry()
	exec := executor.New(executor.Options{MaxInFlight: 64, RetryRate: 100}, logger, reg, time.Now)
	f := &fixture{
		Registry: New(Options{Unknown: unknown}, exec, logger, reg, time.Now), t: t, db: db, store: &counting{Store: db.View(nil), took: 10 * time.Millisecond},
		in: make(chan pipeline.ValidBatch), out: make(chan pipeline.ValidBatch), ended: make(chan error, 1), closed: make(chan struct{}),
	}
	for _, c := range change {
		c(f.Registry)
	}
	go func() {
		f.ended <- f.Run(t.Context(), f.store, f.in, f.out)
		close(f.out)
	}()
	go func() {
		defer close(f.closed)
		for b := range f.out {
			for i := range b.Items {
				r := b.Items[i].Record
				f.db.Write(&r)
				f.note(&f.stored, show(&r))
			}
			b.Done()
		}
	}()
	return f
}

func show(r *telemetry.Record) string {
	return fmt.Sprintf("%s %s %d", r.FleetID, r.DeviceID, (r.TimeMs-noon)/1000)
}

func (f *fixture) note(list *[]string, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*list = append(*list, text)
}

// take returns a list and empties it.
func (f *fixture) take(list *[]string) []string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	all := *list
	*list = nil
	return all
}

// send sends a batch and returns which of its items were stored and which were rejected.
func (f *fixture) send(items ...pipeline.Item) (stored, rejected []string) {
	f.start(items...)
	time.Sleep(500 * time.Millisecond)
	return f.take(&f.stored), f.take(&f.rejected)
}

// start sends a batch, and reports whether it is done.
func (f *fixture) start(items ...pipeline.Item) (done *atomic.Bool) {
	done = new(atomic.Bool)
	f.in <- pipeline.ValidBatch{
		Items: slices.Clone(items),
		Done: func() {
			assert.False(f.t, done.Swap(true), "Done is called once")
		},
		Reject: func(_ context.Context, rejected []pipeline.RejectedItem) error {
			for _, r := range rejected {
				f.note(&f.rejected, string(r.Reason)+" "+show(&r.Record))
			}
			return nil
		},
	}
	return done
}

func (f *fixture) end() {
	close(f.in)
	require.NoError(f.t, <-f.ended)
	<-f.closed
}

func (f *fixture) owner(id string) string {
	owners, err := f.db.View(nil).Owners(f.t.Context(), []string{id})
	require.NoError(f.t, err)
	return owners[0].FleetID
}

const noon = int64(1_772_366_400_000)

// from is a record of a sender, some seconds after noon.
func from(sender, fleet, device string, second int64) pipeline.Item {
	r := telemetry.Record{DeviceID: device, FleetID: fleet, TimeMs: noon + 1000*second, Lat: 52, Lon: 13, Zone: telemetry.UnknownZone}
	return pipeline.Item{Record: r, Sender: sender, Hash: r.PayloadHash()}
}

func TestFirstRecordDecidesTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		stored, rejected := f.send(from("a", "a", "truck", 10), from("b", "b", "truck", 20), from("a", "a", "truck", 30))
		require.Equal(t, []string{"a truck 10", "a truck 30"}, stored)
		require.Equal(t, []string{"wrong_fleet b truck 20"}, rejected)
		// What another fleet can send, whatever its times and however often it tries.
		for _, second := range []int64{-86_400, 10, 30, 31, 300, 1_000_000} {
			stored, rejected = f.send(from("b", "b", "truck", second))
			require.Empty(t, stored)
			require.Len(t, rejected, 1)
		}
		stored, rejected = f.send(from("a", "a", "truck", 5))
		require.Equal(t, []string{"a truck 5"}, stored, "the owner's late record is stored")
		require.Empty(t, rejected)
		require.Equal(t, "a", f.owner("truck"))
		f.end()
		require.EqualValues(t, 1, f.store.transactions.Load())
		require.EqualValues(t, 1, f.store.reads.Load(), "of owners: only for the first batch")
		require.Equal(t, 1.0, testutil.ToFloat64(f.registered))
	})
}

// Two processes that see the first records of a device at once agree on its owner.
func TestProcessesAgreeOnTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fakestore.New()
		a, b := newFixture(t, db, Accept), newFixture(t, db, Accept)
		a.start(from("a", "a", "truck", 1))
		b.start(from("b", "b", "truck", 2))
		time.Sleep(time.Second)
		stored := append(a.take(&a.stored), b.take(&b.stored)...)
		rejected := append(a.take(&a.rejected), b.take(&b.rejected)...)
		require.Len(t, stored, 1)
		require.Len(t, rejected, 1)
		require.True(t, strings.HasPrefix(stored[0], a.owner("truck")+" "))
		a.end()
		b.end()
	})
}

func TestTrustedSenderMovesADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.send(from("a", "a", "truck", 100))
		// A file with older records of another fleet is stored, and moves nothing.
		stored, rejected := f.send(from(pipeline.Trusted, "b", "truck", 50), from(pipeline.Trusted, "b", "truck", 100))
		require.Len(t, stored, 2)
		require.Empty(t, rejected)
		require.Equal(t, "a", f.owner("truck"))
		// A newer record does.
		stored, _ = f.send(from(pipeline.Trusted, "b", "truck", 201), from(pipeline.Trusted, "b", "truck", 200), from("a", "a", "truck", 300))
		require.Len(t, stored, 2, "the former owner's record of the same batch came too late")
		require.Equal(t, "b", f.owner("truck"))
		_, rejected = f.send(from("a", "a", "truck", 400), from("a", "a", "truck", 90))
		require.Equal(t, []string{"wrong_fleet a truck 400", "wrong_fleet a truck 90"}, rejected, "the former owner writes nothing any more")
		stored, rejected = f.send(from("b", "b", "truck", 199), from("b", "b", "truck", 200), from("b", "b", "truck", 500))
		require.Equal(t, []string{"wrong_fleet b truck 199"}, rejected, "the new owner does not change the time of the former one")
		require.Equal(t, []string{"b truck 200", "b truck 500"}, stored)
		stored, _ = f.send(from(pipeline.Trusted, "a", "truck", 95))
		require.Equal(t, []string{"a truck 95"}, stored, "a trusted sender's late record of the former fleet is stored")
		require.Equal(t, "b", f.owner("truck"))
		former, err := f.db.View(nil).FormerOwners(t.Context(), "truck")
		require.NoError(t, err)
		require.Equal(t, []cassandra.Owner{{DeviceID: "truck", FleetID: "a", Since: time.UnixMilli(noon + 100_000).UTC(), SetBy: cassandra.SetByRecord}}, former, "the move is recorded")
		require.Equal(t, 1.0, testutil.ToFloat64(f.moved))
		f.end()
	})
}

// Records that an earlier process stored count as well.
func TestOldFileMovesNothingAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fakestore.New()
		f := newFixture(t, db, Accept)
		f.send(from("a", "a", "truck", 10), from("a", "a", "truck", 1000))
		f.end()
		f = newFixture(t, db, Accept)
		stored, _ := f.send(from(pipeline.Trusted, "b", "truck", 500))
		require.Len(t, stored, 1)
		require.Equal(t, "a", f.owner("truck"))
		f.send(from(pipeline.Trusted, "b", "truck", 501))
		require.EqualValues(t, 1, f.store.latest.Load(), "the newest stored record is read once")
		f.end()
	})
}

// After an upgrade, devices have records and no owner. No other fleet may take them.
func TestStoredRecordsDecideTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []Policy{Accept, Hold, Reject} {
			db := fakestore.New()
			r := from("a", "a", "truck", 10).Record
			db.Write(&r)
			f := newFixture(t, db, policy)
			stored, rejected := f.send(from("b", "b", "truck", 20))
			require.Empty(t, stored)
			require.Equal(t, []string{"wrong_fleet b truck 20"}, rejected)
			require.Equal(t, "a", f.owner("truck"))
			stored, _ = f.send(from("a", "a", "truck", 30))
			require.Len(t, stored, 1)
			f.end()
		}
	})
}

func TestUnknownDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for policy, reason := range map[Policy]string{Hold: "held_device", Reject: "unknown_device"} {
			f := newFixture(t, fakestore.New(), policy)
			for _, sender := range []string{"a", pipeline.Trusted} {
				stored, rejected := f.send(from(sender, "a", "truck", 1), from(pipeline.Trusted, "_canary", "canary", 1))
				require.Equal(t, []string{"_canary canary 1"}, stored, "the platform's own device is known")
				require.Equal(t, []string{reason + " a truck 1"}, rejected)
			}
			before, err := Claim(t.Context(), f.db.View(nil), "a", "truck", time.Now())
			require.NoError(t, err)
			require.Empty(t, before.FleetID)
			stored, rejected := f.send(from("a", "a", "truck", 1), from("b", "b", "truck", 2))
			require.Equal(t, []string{"a truck 1"}, stored, "at once, and whatever its time")
			require.Equal(t, []string{"wrong_fleet b truck 2"}, rejected)
			f.end()
		}
	})
}

func TestClaimByAnAdministrator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fakestore.New()
		ctx, view := t.Context(), db.View(nil)
		since := time.UnixMilli(noon + 50_000).UTC()
		f := newFixture(t, db, Accept)
		f.send(from("b", "b", "truck", 10))
		before, err := Claim(ctx, view, "a", "truck", since)
		require.NoError(t, err)
		require.Equal(t, "b", before.FleetID)
		before, err = Claim(ctx, view, "a", "truck", since)
		require.NoError(t, err)
		require.Equal(t, "a", before.FleetID, "a repetition changes nothing")
		_, rejected := f.send(from("a", "a", "truck", 60))
		require.Len(t, rejected, 1, "this process has the former owner in memory")
		require.NotNil(t, f.Check("a", &telemetry.Record{DeviceID: "truck", FleetID: "a"}))
		time.Sleep(time.Minute)
		require.Nil(t, f.Check("a", &telemetry.Record{DeviceID: "truck", FleetID: "a"}), "it does not reject by what may be out of date")
		stored, rejected := f.send(from("a", "a", "truck", 60), from("a", "a", "truck", 40), from("b", "b", "truck", 70))
		require.Equal(t, []string{"a truck 60"}, stored)
		require.Equal(t, []string{"wrong_fleet a truck 40", "wrong_fleet b truck 70"}, rejected)
		require.NotNil(t, f.Check("b", &telemetry.Record{DeviceID: "truck", FleetID: "b", TimeMs: noon}))
		f.end()

		// A device with stored records and no owner had their fleet as owner.
		r := from("b", "b", "van", 10).Record
		db.Write(&r)
		_, err = Claim(ctx, view, "a", "van", since)
		require.NoError(t, err)
		owners, err := view.Owners(ctx, []string{"van"})
		require.NoError(t, err)
		require.Equal(t, []cassandra.Owner{{DeviceID: "van", FleetID: "a", Since: since, SetBy: cassandra.SetByAdministrator, FormerFleet: "b"}}, owners)
	})
}

// The present owner's records go on while its entry in memory is read again.
func TestOwnersInMemoryAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		for i := range int64(600) { // 5 minutes
			stored, _ := f.send(from("a", "a", "truck", i))
			require.Len(t, stored, 1)
		}
		require.InDelta(t, 5, f.store.reads.Load(), 1)
		_, err := Claim(t.Context(), f.db.View(nil), "b", "truck", time.UnixMilli(noon))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		f.send(from("a", "a", "truck", 700)) // the read that this starts finds the move
		stored, rejected := f.send(from("a", "a", "truck", 701))
		require.Empty(t, stored)
		require.Len(t, rejected, 1)
		f.end()
	})
}

var errMajority = &cassandra.Error{Op: "write", Reason: cassandra.ReasonUnavailable, Err: io.EOF}

func TestOnlyNewDevicesWaitForAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.send(from("a", "a", "truck", 1))
		f.db.FailTransactions(errMajority)
		mixed := f.start(from("a", "a", "truck", 2), from("a", "a", "new-1", 2), from("b", "b", "truck", 2), from(pipeline.Trusted, "b", "truck", 1000))
		only := f.start(from("b", "b", "new-1", 3), from("b", "b", "new-2", 3))
		time.Sleep(time.Second)
		require.Equal(t, []string{"a truck 2"}, f.take(&f.stored))
		require.Equal(t, []string{"wrong_fleet b truck 2"}, f.take(&f.rejected))
		require.False(t, mixed.Load(), "it is not acknowledged")
		for i := range int64(200) {
			done := f.start(from("a", "a", "truck", 10+i))
			time.Sleep(100 * time.Millisecond)
			require.True(t, done.Load(), "a known device does not wait")
		}
		f.take(&f.stored)
		require.Less(t, f.store.transactions.Load(), int32(60), "attempts are rare")
		require.Positive(t, testutil.ToFloat64(f.waiting))
		require.False(t, only.Load())

		f.db.FailTransactions(nil)
		time.Sleep(20 * time.Second)
		require.True(t, mixed.Load())
		require.True(t, only.Load())
		require.ElementsMatch(t, []string{"a new-1 2", "b truck 1000", "b new-2 3"}, f.take(&f.stored))
		require.Equal(t, []string{"wrong_fleet b new-1 3"}, f.take(&f.rejected))
		require.Zero(t, testutil.ToFloat64(f.waiting))
		f.end()
	})
}

// A move that had to wait does not take the device from an owner that sent something newer meanwhile.
func TestMoveThatWaitedIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.send(from("a", "a", "truck", 1))
		f.db.FailTransactions(errMajority)
		done := f.start(from(pipeline.Trusted, "b", "truck", 10))
		f.send(from("a", "a", "truck", 20))
		f.db.FailTransactions(nil)
		time.Sleep(time.Minute)
		require.True(t, done.Load())
		require.Equal(t, []string{"b truck 10"}, f.take(&f.stored))
		require.Equal(t, "a", f.owner("truck"))
		f.end()
	})
}

func TestRecordsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept, func(g *Registry) { g.waitingBytes = 1 << 20 })
		f.db.FailTransactions(errMajority)
		sent := 0
		var done []*atomic.Bool
		for blocked := false; !blocked; {
			items := make([]pipeline.Item, 500)
			for i := range items {
				items[i] = from("b", "b", fmt.Sprint("d", sent*len(items)+i), 1)
			}
			accepted := make(chan *atomic.Bool, 1)
			go func() { accepted <- f.start(items...) }()
			time.Sleep(10 * time.Second)
			select {
			case d := <-accepted:
				done = append(done, d)
				sent++
			default:
				blocked = true
				f.db.FailTransactions(nil)
				time.Sleep(time.Minute)
				done = append(done, <-accepted)
			}
			require.Less(t, sent, 20, "1 MiB is some 5,000 records")
		}
		time.Sleep(time.Minute)
		for _, d := range done {
			require.True(t, d.Load())
		}
		require.Len(t, f.take(&f.stored), 500*len(done))
		f.end()
	})
}

// A shutdown does not wait for what can't be stored. The source has it.
func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.db.FailTransactions(errMajority)
		ctx, cancel := context.WithCancel(t.Context())
		in, out, ended := make(chan pipeline.ValidBatch), make(chan pipeline.ValidBatch, 1), make(chan error, 1)
		go func() { ended <- f.Run(ctx, f.store, in, out) }()
		in <- pipeline.ValidBatch{Items: []pipeline.Item{from("a", "a", "truck", 1)}, Done: func() { t.Error("it is not durable") }}
		close(in)
		time.Sleep(time.Minute)
		require.Empty(t, ended)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		f.end()
	})
}

func TestTransactionsThatCannotSucceedEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.db.FailTransactions(&cassandra.Error{Op: "write", Reason: cassandra.ReasonInvalid, Err: io.EOF})
		f.start(from("a", "a", "truck", 1))
		require.Equal(t, cassandra.ReasonInvalid, cassandra.ReasonOf(<-f.ended))
	})
}

func TestManyNewDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		var items []pipeline.Item
		for i := range 6000 {
			items = append(items, from("a", "a", fmt.Sprint("d", i%3000), int64(i)))
		}
		began := time.Now()
		done := f.start(items...)
		for !done.Load() {
			time.Sleep(time.Millisecond)
		}
		require.Less(t, time.Since(began), 600*time.Millisecond, "256 transactions of 10 ms, 64 at once")
		require.EqualValues(t, 64, f.store.most.Load())
		require.EqualValues(t, 256, f.store.transactions.Load(), "one for each bucket")
		require.EqualValues(t, 1, f.store.reads.Load())
		f.end()
	})
}

// Devices beyond what memory holds are read again, and none is taken for unknown.
func TestManyNewDevicesDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.send(from("a", "a", "truck", 1))
		f.store.took = time.Second
		var flood []*atomic.Bool
		for batch := range 3 {
			var items []pipeline.Item
			for i := range 3000 {
				items = append(items, from("b", "b", fmt.Sprint("b", batch*3000+i), 1))
			}
			flood = append(flood, f.start(items...))
			known := f.start(from("a", "a", "truck", int64(2+batch)))
			time.Sleep(10 * time.Millisecond)
			require.True(t, known.Load(), "a known device does not wait")
		}
		isNew := f.start(from("a", "a", "van", 2))
		time.Sleep(1100 * time.Millisecond)
		require.True(t, isNew.Load(), "nor does a single new one")
		require.False(t, flood[0].Load())
		time.Sleep(20 * time.Second)
		for _, done := range flood {
			require.True(t, done.Load())
		}
		require.Len(t, f.take(&f.stored), 9004)
		require.EqualValues(t, 5, f.store.reads.Load(), "one for each batch with new devices")
		f.end()
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.store.took = 0
		const memory, devices = 1 << 20, 10_000
		f.owners.SetMaximum(memory)
		for round := range int64(2) {
			for first := 0; first < devices; first += 1000 {
				items := make([]pipeline.Item, 1000)
				for i := range items {
					items[i] = from("a", "a", fmt.Sprint("vehicle-", first+i), round)
				}
				f.start(items...)
			}
		}
		require.Len(t, f.take(&f.stored), 2*devices)
		require.Empty(t, f.take(&f.rejected))
		require.LessOrEqual(t, f.owners.WeightedSize(), uint64(memory))
		require.Less(t, f.owners.EstimatedSize(), devices)
		f.end()
	})
}

// A sender that makes up devices fills its fleet up to the limit. Nothing beyond it is kept, and no other fleet is affected.
func TestDevicesOfAFleetAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fakestore.New()
		limit := func(g *Registry) { g.MaxDevices = 100 }
		f := newFixture(t, db, Accept, limit)
		f.store.took = 0
		f.send(from("b", "b", "b-0", 0))
		const devices = 20_000
		for first := 0; first < devices; first += 1000 {
			items := []pipeline.Item{from("b", "b", fmt.Sprint("b-", first), 1), from("b", "b", "b-0", int64(first))}
			for i := range 1000 {
				items = append(items, from("a", "a", fmt.Sprint("made-up-", first+i), 1))
			}
			f.start(items...)
		}
		stored, rejected := f.take(&f.stored), f.take(&f.rejected)
		require.Len(t, stored, 100+2*devices/1000, "of a its first 100 devices, and all of b")
		require.Len(t, rejected, devices-100)
		require.True(t, strings.HasPrefix(rejected[0], "too_many_devices a made-up-"), rejected[0])
		require.Empty(t, f.owner("made-up-100"), "no row")
		require.EqualValues(t, 120, f.owners.EstimatedSize(), "nor anything in memory")
		require.EqualValues(t, 120, testutil.ToFloat64(f.registered))
		require.EqualValues(t, 2, f.store.counts.Load(), "the devices of each fleet are counted once a minute")

		stored, rejected = f.send(from("b", "b", "wanted", 1), from("a", "a", "made-up-0", 2), from("a", "a", "wanted", 1))
		require.Equal(t, []string{"b wanted 1", "a made-up-0 2"}, stored, "known devices go on")
		require.Equal(t, []string{"wrong_fleet a wanted 1"}, rejected)
		stored, rejected = f.send(from("a", "a", "also-wanted", 1), from("b", "b", "also-wanted", 1))
		require.Equal(t, []string{"b also-wanted 1"}, stored, "a fleet at its limit does not take the turn of another")
		require.Equal(t, []string{"wrong_fleet a also-wanted 1"}, rejected)
		stored, _ = f.send(from(pipeline.Trusted, "a", "of the operator", 1))
		require.Len(t, stored, 1, "a trusted sender has no limit")
		f.end()

		f = newFixture(t, db, Accept, limit)
		_, rejected = f.send(from("a", "a", "another", 1))
		require.Equal(t, []string{"too_many_devices a another 1"}, rejected, "the limit holds after a restart")
		for i := range int64(2) { // an operator moves two devices
			f.send(from(pipeline.Trusted, "b", fmt.Sprint("made-up-", i), 10))
		}
		time.Sleep(time.Minute)
		stored, rejected = f.send(from("a", "a", "another", 1), from("a", "a", "one more", 1))
		require.Equal(t, []string{"a another 1"}, stored, "there is room again")
		require.Equal(t, []string{"too_many_devices a one more 1"}, rejected)
		f.end()
	})
}

// Devices whose owners can't be set yet count as well, and so do devices that another process registers.
func TestDevicesThatWaitCountForTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fakestore.New()
		limit := func(g *Registry) { g.MaxDevices = 2 }
		f, other := newFixture(t, db, Accept, limit), newFixture(t, db, Accept, limit)
		db.FailTransactions(&cassandra.Error{Op: "write", Reason: cassandra.ReasonUnavailable})
		stored, rejected := f.send(from("a", "a", "1", 1), from("a", "a", "2", 1), from("a", "a", "3", 1))
		require.Empty(t, stored)
		require.Equal(t, []string{"too_many_devices a 3 1"}, rejected)
		_, rejected = f.send(from("a", "a", "1", 2), from("a", "a", "4", 1))
		require.Equal(t, []string{"too_many_devices a 4 1"}, rejected)
		db.FailTransactions(nil)
		time.Sleep(longestPause)
		require.Len(t, f.take(&f.stored), 3)
		_, rejected = other.send(from("a", "a", "5", 1))
		require.Equal(t, []string{"too_many_devices a 5 1"}, rejected)
		f.end()
		other.end()
	})
}

// Where the devices can't be counted, the count of the process itself holds.
func TestUncountedDevicesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept, func(g *Registry) { g.MaxDevices = 2 })
		f.store.countErr = errTimeout
		for i := range 5 {
			f.send(from("a", "a", fmt.Sprint(i), 1))
			time.Sleep(time.Minute)
		}
		require.Equal(t, 2.0, testutil.ToFloat64(f.registered))
		f.end()
	})
}

// A sender of one fleet stays one when its record names another, as after reprocessing with --set.
func TestSenderOfAFleetWritesToItOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, fakestore.New(), Accept)
		f.send(from("a", "a", "truck", 1))
		_, rejected := f.send(from("b", "a", "truck", 2), from("b", "a", "new", 2))
		require.Equal(t, []string{"forbidden_fleet a truck 2", "forbidden_fleet a new 2"}, rejected)
		stored, rejected := f.send(from("", "a", "truck", 3), from("", "b", "truck", 3))
		require.Equal(t, []string{"a truck 3"}, stored, "an unknown sender writes to the fleet that it names")
		require.Equal(t, []string{"wrong_fleet b truck 3"}, rejected)
		f.end()
	})
}

func TestRejectionNamesNoOtherFleet(t *testing.T) {
	o := &owner{Owner: cassandra.Owner{FleetID: "secret", FormerFleet: "hidden", Since: time.UnixMilli(noon)}, sinceMs: noon}
	other := o.check("mine", &telemetry.Record{DeviceID: "truck", FleetID: "mine"})
	require.NotContains(t, other.Error(), "secret")
	before := o.check("secret", &telemetry.Record{DeviceID: "truck", FleetID: "secret", TimeMs: noon - 1})
	require.NotContains(t, before.Error(), "hidden")
	require.Contains(t, before.Error(), "2026-03-01T12:00:00Z")
}
