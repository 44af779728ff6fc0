package processor

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// drives is a fix of the only vehicle of these tests.
func drives(at time.Time, kmh float64) telemetry.Record {
	return telemetry.Record{DeviceID: "v1", FleetID: "north", Zone: "unknown", TimeMs: at.UnixMilli(), Lat: 51, Lon: 8, SpeedKmh: telemetry.Some(kmh)}
}

// send stores a fix every ten seconds, and waits for what comes of the last.
func (p *process) send(t *testing.T, kmh ...float64) {
	t.Helper()
	for _, speed := range kmh {
		require.NoError(t, p.store([]telemetry.Record{drives(time.Now(), speed)}))
		time.Sleep(10 * time.Second)
	}
}

// speeding is the open alert of the vehicle's speed among those of its fleet; nil when there is none.
func (p *process) speeding(t *testing.T) *cassandra.Alert {
	t.Helper()
	all := &view{fakeStore: p.view.fakeStore, left: -1}
	open, err := all.OpenAlerts(context.Background(), "north")
	require.NoError(t, err)
	for _, a := range open {
		if a.Type == string(telemetry.SpeedLimit) {
			return &a
		}
	}
	return nil
}

// steps is what people were told of the vehicle's speed, in words.
func (p *process) steps() (words []string) {
	for _, s := range *p.notified {
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

// scene runs a test in its own time, two days after it began.
func scene(t *testing.T, run func(t *testing.T, store *fakeStore)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(48 * time.Hour)
		run(t, newFakeStore())
	})
}

func TestWhoTakesOverGoesOnTelling(t *testing.T) {
	scene(t, func(t *testing.T, store *fakeStore) {
		p := start(t, store, true)
		p.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.Equal(t, []string{"opened HIGH"}, p.steps())
		before := *p.speeding(t)
		require.True(t, before.Notify)
		p.kill()
		again := start(t, store, true)
		for range 12 { // the dead one is missed in the middle of it
			again.send(t, 100)
			require.Equal(t, before, *again.speeding(t), "people are told of it all the time")
		}
		again.send(t, 20)
		require.Nil(t, again.speeding(t))
		require.Equal(t, []string{"resolved HIGH"}, again.steps(), "and of its end, once")
		again.finish(t)
		requireFresh(t, store)
	})
}

func TestTwoWhoShareAVehicleDoNotHideItsAlert(t *testing.T) {
	scene(t, func(t *testing.T, store *fakeStore) {
		one, other := start(t, store, true), start(t, store, true)
		one.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.True(t, one.speeding(t).Notify)
		for range 6 {
			other.send(t, 100)
			one.send(t, 100)
			require.True(t, one.speeding(t).Notify)
		}
		require.Equal(t, []string{"opened HIGH"}, append(one.steps(), other.steps()...))
		one.finish(t)
		other.finish(t)
		requireFresh(t, store)
	})
}

func TestALateFixTellsNobodyAgain(t *testing.T) {
	scene(t, func(t *testing.T, store *fakeStore) {
		p := start(t, store, true)
		began := time.Now()
		late := func(second int) {
			t.Helper()
			require.NoError(t, p.store([]telemetry.Record{drives(began.Add(time.Duration(second)*time.Second), 30)}))
			time.Sleep(10 * time.Second)
		}
		p.send(t, 30, 30)
		p.send(t, 100, 100, 100, 100, 100, 100, 100, 20) // one that is over
		for range 40 {
			p.send(t, 30) // the cool-down
		}
		p.send(t, 75, 75, 75, 75, 75, 75, 75, 85, 85) // and one that is open, and has become graver
		told := []string{"opened HIGH", "resolved HIGH", "opened LOW", "escalated LOW to MEDIUM"}
		require.Equal(t, told, p.steps())
		for i := range 3 {
			late(5 + i)
			require.Equal(t, told, p.steps(), "derived anew, it is what people know already")
			require.True(t, p.speeding(t).Notify)
			require.Equal(t, "MEDIUM", p.speeding(t).Severity)
		}
		p.send(t, 20)
		require.Equal(t, append(told, "resolved MEDIUM"), p.steps())
		p.finish(t)
		requireFresh(t, store)
	})
}

func TestAnAlertThatWasNoneIsTakenBack(t *testing.T) {
	scene(t, func(t *testing.T, store *fakeStore) {
		p := start(t, store, true)
		began := time.Now()
		p.send(t, 100, 100, 100, 100, 100, 100, 100)
		require.Equal(t, []string{"opened HIGH"}, p.steps())
		// It was slow in between, which comes late.
		require.NoError(t, p.store([]telemetry.Record{drives(began.Add(35*time.Second), 30)}))
		time.Sleep(10 * time.Second)
		require.Nil(t, p.speeding(t))
		require.Equal(t, []string{"opened HIGH", "resolved HIGH"}, p.steps())
		p.send(t, 100, 100, 100)
		require.Equal(t, []string{"opened HIGH", "resolved HIGH", "opened HIGH"}, p.steps(), "now it lasts long enough")
		// And it began earlier than it seemed: the same alert to people.
		require.NoError(t, p.store([]telemetry.Record{drives(began.Add(36*time.Second), 100)}))
		time.Sleep(10 * time.Second)
		require.True(t, p.speeding(t).Notify)
		p.send(t, 20)
		require.Equal(t, []string{"opened HIGH", "resolved HIGH", "opened HIGH", "resolved HIGH"}, p.steps())
		p.finish(t)
		requireFresh(t, store)
	})
}

func TestWhatWasResolvedByHandStaysOffTheOpenAlerts(t *testing.T) {
	scene(t, func(t *testing.T, store *fakeStore) {
		p := start(t, store, true)
		began := time.Now()
		p.send(t, 30, 100, 100, 100, 100, 100, 100, 100)
		require.NotNil(t, p.speeding(t))
		p.view.resolve(*p.speeding(t), time.Now().Add(3*time.Second).UnixMicro())
		p.send(t, 100, 100, 100, 100)
		require.Nil(t, p.speeding(t))
		require.NoError(t, p.store([]telemetry.Record{drives(began.Add(5*time.Second), 30)}))
		time.Sleep(10 * time.Second)
		require.Nil(t, p.speeding(t), "derived anew")
		p.kill()
		again := start(t, store, true)
		again.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
		require.Nil(t, again.speeding(t), "by who takes over, too")
		require.Empty(t, again.steps())
		again.finish(t)
	})
}

// An alert is several rows. Whenever a process dies between them, who takes over completes them.
func TestNoDeathLeavesAnAlertInPieces(t *testing.T) {
	for k := range 60 {
		t.Run(fmt.Sprintf("after %d requests", k), func(t *testing.T) {
			scene(t, func(t *testing.T, store *fakeStore) {
				p := start(t, store, true)
				p.send(t, 30, 75, 75, 75, 75, 75, 75) // it lacks ten seconds
				p.view.mu.Lock()
				p.view.left = k
				p.view.mu.Unlock()
				for _, kmh := range []float64{75, 82, 100, 100, 20, 20} { // opened, escalated twice, resolved
					if p.store([]telemetry.Record{drives(time.Now(), kmh)}) != nil {
						break
					}
					time.Sleep(10 * time.Second)
				}
				p.kill()
				time.Sleep(time.Minute) // until it is missed
				start(t, store, true).finish(t)
				requireFresh(t, store)
			})
		})
	}
}

// short is a store with too few living replicas for the sure level.
type short struct{ *view }

func (short) Fleets(context.Context) ([]string, error) {
	return nil, &cassandra.Error{Op: "read fleets", Reason: cassandra.ReasonUnavailable, Err: errKilled}
}

// While a data centre is away, people are told of what is open all the same.
func TestOpenAlertsAreReadFromTheReplicasThatLive(t *testing.T) {
	scene(t, func(t *testing.T, store *fakeStore) {
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
