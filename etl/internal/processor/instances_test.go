package processor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/verify"
)

func position(at time.Time) telemetry.Record {
	return telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: at.UnixMilli(), Lat: 51, Lon: 8}
}

// A load does not wait for clocks that may differ: the running instance sums the hours again.
func TestBatchInstanceHandsOverToStreamInstance(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		stream := start(t, store, true)
		time.Sleep(time.Minute)
		batch := start(t, store, false)
		for i := range 20 {
			require.NoError(t, batch.store([]telemetry.Record{position(time.Now().Add(time.Duration(i-20) * time.Minute))}))
		}
		began := time.Now()
		batch.finish(t)
		require.Less(t, time.Since(began), 2*time.Second)
		require.NotEmpty(t, store.PendingHours()[batch.claims.InstanceID()])
		time.Sleep(30 * time.Second)
		require.Empty(t, store.PendingHours(), "the hours are summed again")
		stream.finish(t)
		requireFresh(t, store)
	})
}

// Of a load whose successor fails at once nothing stays wrong: the next instance takes over what both left.
func TestHandoverSurvivesTheSuccessor(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		stream, batch := start(t, store, true), start(t, store, false)
		time.Sleep(time.Minute)
		stream.send(t, 50, 50)
		require.NoError(t, batch.store([]telemetry.Record{position(time.Now().Add(-time.Hour)), position(time.Now())}))
		batch.finish(t)
		stream.kill()
		time.Sleep(time.Minute) // until no instance takes it for running
		start(t, store, true).finish(t)
		requireFresh(t, store)
	})
}

// A load that is alone releases everything itself.
func TestBatchInstanceAloneLeavesNothing(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		batch := start(t, store, false)
		require.NoError(t, batch.store([]telemetry.Record{position(time.Now())}))
		began := time.Now()
		batch.finish(t)
		require.Less(t, time.Since(began), 2*time.Second)
		requireFresh(t, store)
	})
}

// The vehicle sends each second while its instance is paused for 45 s, and after it; later the instance is killed.
func TestPausedInstanceClaimsItsDevicesAgain(t *testing.T) {
	for name, pause := range map[string]time.Duration{"45 s": 45 * time.Second, "10 min": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				one, other := start(t, store, true), start(t, store, true)
				one.send(t, 50, 50, 50)
				first := one.claims.InstanceID()
				one.view.Pause(pause)
				require.NoError(t, one.store([]telemetry.Record{position(time.Now())}), "acknowledged after the pause")
				require.NotEqual(t, first, one.claims.InstanceID(), "with a new ID")
				claimed := fakestore.List[cassandra.Claim](store, cassandra.TableClaims, fakestore.KeyOf("v1", one.claims.InstanceID()))
				require.Len(t, claimed, 1, "the device is claimed again before the record is acknowledged")
				for range 30 {
					one.send(t, 50)
				}
				one.kill()
				time.Sleep(5 * time.Minute)
				other.finish(t)
				requireFresh(t, store)
			})
		})
	}
}

// While the lease is not confirmed, nothing is acknowledged and no derived row is written.
func TestNothingIsWrittenWithoutALease(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		p.send(t, 50, 50)
		p.view.Pause(time.Hour)
		acked := make(chan error, 1)
		go func() { acked <- p.store([]telemetry.Record{position(time.Now())}) }()
		time.Sleep(30 * time.Minute)
		require.Empty(t, acked)
		time.Sleep(time.Hour)
		require.NoError(t, <-acked)
		p.finish(t)
		requireFresh(t, store)
	})
}

// An instance whose row is missing is as good as fenced.
func TestRemovedInstanceContinuesUnderANewID(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		p.send(t, 50)
		first := p.claims.InstanceID()
		require.NoError(t, store.View(nil).RemoveInstance(t.Context(), first))
		time.Sleep(10 * time.Second)
		require.NotEqual(t, first, p.claims.InstanceID())
		p.send(t, 50)
		p.finish(t)
		start(t, store, true).finish(t)
		requireFresh(t, store)
	})
}

// Rows of a device that an instance still derives are not judged, and never count as right.
func TestVerifyCountsWhatItCannotJudge(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		e, fingerprint := engine(t)
		v := &verify.Verifier{Store: store.View(nil), Rules: derived.Rules{Engine: e, Fingerprint: fingerprint}, Now: time.Now}
		today := cassandra.DayOf(time.Now().UnixMilli())
		compare := func() *verify.Report {
			report, err := v.Verify(t.Context(), []string{"north"}, today-1, today)
			require.NoError(t, err)
			return report
		}
		p := start(t, store, true)
		require.NoError(t, p.store([]telemetry.Record{position(time.Now().Add(-3 * time.Hour))}))
		require.NoError(t, p.store([]telemetry.Record{position(time.Now())}))
		p.kill() // before the rows of the last record are written
		report := compare()
		require.Empty(t, report.Differences)
		require.True(t, report.NotVerified.Any())
		require.Equal(t, 1, report.NotVerified.Sending)
		time.Sleep(10 * time.Minute)
		report = compare()
		require.Empty(t, report.Differences)
		require.Positive(t, report.NotVerified.Pending+report.NotVerified.Hours, "claimed by an instance that has crashed")
		start(t, store, true).finish(t)
		report = compare()
		require.Empty(t, report.Differences)
		require.False(t, report.NotVerified.Any())
		require.Equal(t, 2, report.Records)
	})
}
