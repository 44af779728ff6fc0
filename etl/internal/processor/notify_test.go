package processor

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// driving returns a record of the only vehicle of these tests.
func driving(at time.Time, kmh float64) telemetry.Record {
	return telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: at.UnixMilli(), Lat: 51, Lon: 8, SpeedKmh: telemetry.Some(kmh)}
}

// send stores a record every ten seconds, and waits ten seconds after the last.
func (p *process) send(t *testing.T, kmh ...float64) {
	t.Helper()
	for _, speed := range kmh {
		require.NoError(t, p.store([]telemetry.Record{driving(time.Now(), speed)}))
		time.Sleep(10 * time.Second)
	}
}

// speeding returns the open speed alert of the vehicle; nil if there is none.
func (p *process) speeding(t *testing.T) *cassandra.Alert {
	t.Helper()
	all := p.view.View(nil)
	open, err := all.OpenAlerts(context.Background(), "north")
	require.NoError(t, err)
	for _, a := range open {
		if a.Type == string(telemetry.SpeedLimit) {
			return &a
		}
	}
	return nil
}

// events describes the notified events of speed alerts.
func (p *process) events() (words []string) {
	for _, s := range p.notified() {
		if s.Type != telemetry.SpeedLimit {
			continue
		}
		word := fmt.Sprint(s.Transition, " ", s.Severity)
		if s.From != "" && s.From != s.Severity {
			word = fmt.Sprint(s.Transition, " ", s.From, " to ", s.Severity)
		}
		words = append(words, word)
	}
	return words
}

// simulated runs a test in simulated time, two days after it began.
func simulated(t *testing.T, run func(t *testing.T, store *fakestore.Store)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(48 * time.Hour)
		run(t, fakestore.New())
	})
}

func TestTakeoverContinuesNotifications(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		p.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.Equal(t, []string{"opened HIGH"}, p.events())
		before := *p.speeding(t)
		require.True(t, before.Notify)
		p.kill()
		again := start(t, store, true)
		for range 12 { // the takeover happens meanwhile
			again.send(t, 100)
			require.Equal(t, before, *again.speeding(t), "it stays notified")
		}
		again.send(t, 20)
		require.Nil(t, again.speeding(t))
		require.Equal(t, []string{"opened HIGH", "resolved HIGH"}, again.events(), "the other may not have sent the opening")
		again.finish(t)
		requireFresh(t, store)
	})
}

func TestSharedVehicleKeepsItsAlert(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		one, other := start(t, store, true), start(t, store, true)
		one.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.True(t, one.speeding(t).Notify)
		for range 6 {
			other.send(t, 100)
			one.send(t, 100)
			require.True(t, one.speeding(t).Notify)
		}
		require.Equal(t, []string{"opened HIGH"}, append(one.events(), other.events()...))
		one.finish(t)
		other.finish(t)
		requireFresh(t, store)
	})
}

func TestLateRecordDoesNotNotifyAgain(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		began := time.Now()
		late := func(second int) {
			t.Helper()
			require.NoError(t, p.store([]telemetry.Record{driving(began.Add(time.Duration(second)*time.Second), 30)}))
			time.Sleep(10 * time.Second)
		}
		p.send(t, 30, 30)
		p.send(t, 100, 100, 100, 100, 100, 100, 100, 20) // an alert that ends
		for range 40 {
			p.send(t, 30) // the cool-down
		}
		p.send(t, 75, 75, 75, 75, 75, 75, 75, 85, 85) // and one that is open and escalates
		want := []string{"opened HIGH", "resolved HIGH", "opened LOW", "escalated LOW to MEDIUM"}
		require.Equal(t, want, p.events())
		for i := range 3 {
			late(5 + i)
			require.Equal(t, want, p.events(), "the recomputation finds nothing new")
			require.True(t, p.speeding(t).Notify)
			require.Equal(t, "MEDIUM", p.speeding(t).Severity)
		}
		p.send(t, 20)
		require.Equal(t, append(want, "resolved MEDIUM"), p.events())
		p.finish(t)
		requireFresh(t, store)
	})
}

func TestDisprovedAlertIsResolved(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		began := time.Now()
		p.send(t, 100, 100, 100, 100, 100, 100, 100)
		require.Equal(t, []string{"opened HIGH"}, p.events())
		// A late record says that it was slow in between.
		require.NoError(t, p.store([]telemetry.Record{driving(began.Add(35*time.Second), 30)}))
		time.Sleep(10 * time.Second)
		require.Nil(t, p.speeding(t))
		require.Equal(t, []string{"opened HIGH", "resolved HIGH"}, p.events())
		p.send(t, 100, 100, 100)
		require.Equal(t, []string{"opened HIGH", "resolved HIGH", "opened HIGH"}, p.events(), "now it has lasted long enough")
		// A late record says that it began earlier: receivers know it as the same alert.
		require.NoError(t, p.store([]telemetry.Record{driving(began.Add(36*time.Second), 100)}))
		time.Sleep(10 * time.Second)
		require.True(t, p.speeding(t).Notify)
		p.send(t, 20)
		require.Equal(t, []string{"opened HIGH", "resolved HIGH", "opened HIGH", "resolved HIGH"}, p.events())
		p.finish(t)
		requireFresh(t, store)
	})
}

func TestManuallyResolvedAlertStaysResolved(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		began := time.Now()
		p.send(t, 30, 100, 100, 100, 100, 100, 100, 100)
		require.NotNil(t, p.speeding(t))
		p.view.Resolve(*p.speeding(t), time.Now().Add(3*time.Second).UnixMicro())
		p.send(t, 100, 100, 100, 100)
		require.Nil(t, p.speeding(t))
		require.NoError(t, p.store([]telemetry.Record{driving(began.Add(5*time.Second), 30)}))
		time.Sleep(10 * time.Second)
		require.Nil(t, p.speeding(t), "after a recomputation")
		p.kill()
		again := start(t, store, true)
		again.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.Nil(t, again.speeding(t), "after a takeover, too")
		require.Empty(t, again.events())
		again.finish(t)
	})
}

// An alert is several rows. If a process is killed between them, the takeover completes them.
func TestCrashLeavesNoAlertIncomplete(t *testing.T) {
	for k := range 60 {
		t.Run(fmt.Sprintf("after %d requests", k), func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				p := start(t, store, true)
				p.send(t, 30, 75, 75, 75, 75, 75, 75) // ten seconds too short
				p.view.KillAfter(k)
				for _, kmh := range []float64{75, 82, 100, 100, 20, 20} { // opened, escalated twice, resolved
					if p.store([]telemetry.Record{driving(time.Now(), kmh)}) != nil {
						break
					}
					time.Sleep(10 * time.Second)
				}
				p.kill()
				time.Sleep(time.Minute) // until it is fenced
				start(t, store, true).finish(t)
				requireFresh(t, store)
			})
		})
	}
}

// short is a store with too few replicas for strong reads.
type short struct{ *fakestore.View }

func (short) Fleets(context.Context) ([]string, error) {
	return nil, &cassandra.Error{Op: "read fleets", Reason: cassandra.ReasonUnavailable, Err: fakestore.ErrKilled}
}

// While a data center is down, receivers are notified of open alerts all the same.
func TestOpenAlertsAreReadWithTooFewReplicas(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		p.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.NotNil(t, p.speeding(t))
		p.stores.Strong = short{p.view}
		open, err := p.OpenAlerts(context.Background())
		require.NoError(t, err)
		require.NotEmpty(t, open)
		p.finish(t)
	})
}

// sendLate stores a record for every ten seconds of an outage that ends now.
func (p *process) sendLate(t *testing.T, outage time.Duration, kmh func(age time.Duration) float64) {
	t.Helper()
	var records []telemetry.Record
	for age := outage; age > 0; age -= 10 * time.Second {
		records = append(records, driving(time.Now().Add(-age), kmh(age)))
	}
	require.NoError(t, p.store(records))
}

func fast(time.Duration) float64 { return 100 }

// An alert that began during a long outage and still holds is notified, whatever its age.
func TestOldAlertThatHoldsIsNotified(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(t *testing.T, store *fakestore.Store) *process
		want []string
	}{
		"while the vehicle sends": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, true)
			p.sendLate(t, 20*time.Minute, fast)
			require.Empty(t, p.events(), "a later record may resolve it")
			p.send(t, 100, 100, 100, 100, 100)
			return p
		}, []string{"opened HIGH"}},
		"that became worse since": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, true)
			p.sendLate(t, 20*time.Minute, func(time.Duration) float64 { return 75 })
			p.send(t, 75, 75, 75, 75, 75, 100, 100)
			return p
		}, []string{"opened LOW", "escalated LOW to HIGH"}},
		"of a silent vehicle": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, true)
			p.sendLate(t, 20*time.Minute, fast)
			time.Sleep(time.Minute)
			return p
		}, []string{"opened HIGH"}},
		"whose end comes with the records after it": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, true)
			p.sendLate(t, 30*time.Minute, func(age time.Duration) float64 {
				if age > 25*time.Minute {
					return 100
				}
				return 20
			})
			p.send(t, 20, 20, 20, 20, 20, 20)
			return p
		}, nil},
		"found by late records": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, true)
			p.send(t, 30)
			began := time.Now()
			time.Sleep(7 * time.Minute)
			p.send(t, 100)
			for second := 300; second < 420; second += 10 {
				require.NoError(t, p.store([]telemetry.Record{driving(began.Add(time.Duration(second)*time.Second), 100)}))
			}
			p.send(t, 100, 100, 100, 100, 100)
			return p
		}, []string{"opened HIGH"}},
		"after a crash": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, true)
			p.sendLate(t, 20*time.Minute, fast)
			time.Sleep(10 * time.Second)
			p.kill()
			require.Empty(t, p.events())
			p = start(t, store, true)
			time.Sleep(2 * time.Minute)
			return p
		}, []string{"opened HIGH"}},
		"stored by a load": {func(t *testing.T, store *fakestore.Store) *process {
			p := start(t, store, false)
			p.sendLate(t, 20*time.Minute, fast)
			return p
		}, []string{"opened HIGH"}},
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				p := c.run(t, store)
				if open := p.speeding(t); open != nil && len(c.want) > 0 && p.options.Stream {
					require.True(t, open.Notify, "Alertmanager is sent it again and again")
				}
				p.finish(t)
				require.Equal(t, c.want, p.events())
				if len(c.want) > 0 {
					require.True(t, p.speeding(t).Notify)
				}
				requireFresh(t, store)
			})
		})
	}
}

// A vehicle went silent long before its silence is found: it is offline all the same.
func TestLongSilenceIsNotified(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		p := start(t, store, true)
		p.send(t, 30, 30)
		p.finish(t)
		time.Sleep(3 * time.Hour)
		p = start(t, store, true)
		time.Sleep(5 * time.Minute)
		require.Len(t, p.notified(), 1)
		require.Equal(t, telemetry.DeviceOffline, p.notified()[0].Type)
		p.finish(t)
		again := start(t, store, true)
		time.Sleep(5 * time.Minute)
		require.Empty(t, again.notified(), "receivers know it")
		again.finish(t)
		requireFresh(t, store)
	})
}

// What a process stored and may not have sent before it crashed is sent by the one that takes over.
func TestTakeoverSendsAgainWhatMayBeLost(t *testing.T) {
	for name, c := range map[string]struct {
		wait  time.Duration // between the end of the alert and the crash
		crash bool
		want  []string
	}{
		"crash":                    {time.Minute, true, []string{"opened LOW", "escalated LOW to HIGH", "resolved HIGH"}},
		"crash long after its end": {30 * time.Minute, true, nil},
		"shutdown":                 {time.Minute, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				p := start(t, store, true)
				p.send(t, 75, 75, 75, 75, 75, 75, 75, 100, 100, 20)
				require.Equal(t, []string{"opened LOW", "escalated LOW to HIGH", "resolved HIGH"}, p.events())
				for range c.wait / (10 * time.Second) {
					p.send(t, 20)
				}
				if c.crash {
					p.kill()
				} else {
					p.finish(t)
				}
				again := start(t, store, true)
				time.Sleep(2 * time.Minute)
				require.Equal(t, c.want, again.events())
				again.finish(t)
				requireFresh(t, store)
			})
		})
	}
}
