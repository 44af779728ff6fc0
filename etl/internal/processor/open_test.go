package processor

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// resend reads the open alerts every minute, as the process does, for a time.
func (p *process) resend(t *testing.T, during time.Duration) {
	t.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(time.Minute) {
		_, err := p.OpenAlerts(context.Background())
		require.NoError(t, err)
	}
}

func TestOpenAlertStaysAsLongAsItHolds(t *testing.T) {
	for name, c := range map[string]struct {
		sends    time.Duration // between two records; 0: none
		resolved bool          // by hand
	}{
		"of a vehicle that sends":                          {sends: 10 * time.Minute},
		"of a silent vehicle":                              {},
		"of a vehicle that sends, not when it is resolved": {sends: 10 * time.Minute, resolved: true},
		"of a silent vehicle, not when it is resolved":     {resolved: true},
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				p := start(t, store, true)
				p.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
				opened := p.speeding(t)
				require.NotNil(t, opened)
				if c.resolved {
					time.Sleep(10 * time.Second) // longer than clocks differ
					p.view.Resolve(*opened, time.Now().UnixMicro())
				}
				for range 30 { // hours
					if c.sends != 0 {
						for end := time.Now().Add(time.Hour); time.Now().Before(end); p.resend(t, c.sends) {
							require.NoError(t, p.store([]telemetry.Record{driving(time.Now(), 100)}))
						}
					} else {
						p.resend(t, time.Hour)
					}
					if c.resolved {
						require.Nil(t, p.speeding(t))
						continue
					}
					now := p.speeding(t)
					require.NotNil(t, now)
					require.True(t, now.Notify)
					require.Equal(t, opened.OpenedMs, now.OpenedMs)
				}
				require.Equal(t, []string{"opened HIGH"}, p.events())
				p.finish(t)
				if !c.resolved {
					requireFresh(t, store)
				}
			})
		})
	}
}

// Stored open alerts expire while nothing runs for days. The next process stores and sends the alerts that hold.
func TestOpenAlertReturnsAfterDaysWithoutAProcess(t *testing.T) {
	for name, sends := range map[string]bool{"the vehicle is silent": false, "the vehicle sends": true} {
		t.Run(name, func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				p := start(t, store, true)
				p.send(t, 100, 100, 100, 100, 100, 100, 100, 100)
				opened := p.speeding(t)
				p.finish(t)
				time.Sleep(3 * 24 * time.Hour)
				require.Nil(t, p.speeding(t))

				next := start(t, store, true)
				if sends {
					require.NoError(t, next.store([]telemetry.Record{driving(time.Now(), 100)}))
				}
				next.resend(t, 5*time.Minute)
				now := next.speeding(t)
				require.NotNil(t, now)
				require.Equal(t, opened.OpenedMs, now.OpenedMs)
				require.True(t, now.Notify)
				require.Equal(t, []string{"opened HIGH"}, next.events())
				next.finish(t)
				requireFresh(t, store)
			})
		})
	}
}

// holes is a store in which some partitions of fleets can't be read.
type holes struct {
	*fakestore.View
	open, latest func(fleet string, bucket int32) bool
	reason       cassandra.Reason // empty: no answer comes at all
}

func (s *holes) fail(ctx context.Context) error {
	if s.reason == "" {
		<-ctx.Done()
		return &cassandra.Error{Op: "read", Reason: cassandra.ReasonCanceled, Err: ctx.Err()}
	}
	return &cassandra.Error{Op: "read", Reason: s.reason, Err: errors.New("too many tombstones")}
}

func (s *holes) OpenAlertsOfBucket(ctx context.Context, fleet string, bucket int32) ([]cassandra.Alert, error) {
	if s.open != nil && s.open(fleet, bucket) {
		return nil, s.fail(ctx)
	}
	return s.View.OpenAlertsOfBucket(ctx, fleet, bucket)
}

func (s *holes) LatestOfFleet(ctx context.Context, fleet string) ([]cassandra.Telemetry, error) {
	if s.latest != nil && s.latest(fleet, 0) {
		return nil, s.fail(ctx)
	}
	return s.View.LatestOfFleet(ctx, fleet)
}

func TestUnreadablePartitionOfAFleetCostsOnlyItself(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonFailure, cassandra.ReasonReadTimeout, cassandra.ReasonOther, ""} {
		t.Run(fmt.Sprint("open alerts ", reason), func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				s := &holes{reason: reason}
				p := startOn(t, store, true, func(v *fakestore.View) Store { s.View = v; return s })
				vehicles := []struct{ id, fleet string }{{"v1", "north"}, {"v2", "north"}, {"v1-south", "south"}}
				require.NotEqual(t, cassandra.OpenAlertBucket("v1"), cassandra.OpenAlertBucket("v2"))
				send := func(kmh float64) {
					for _, vehicle := range vehicles {
						r := driving(time.Now(), kmh)
						r.DeviceID, r.FleetID = vehicle.id, vehicle.fleet
						require.NoError(t, p.store([]telemetry.Record{r}))
					}
					time.Sleep(10 * time.Second)
				}
				told := func() (ids []string) {
					open, err := p.OpenAlerts(context.Background())
					require.NoError(t, err)
					for _, a := range open {
						if a.Type == telemetry.SpeedLimit {
							ids = append(ids, a.DeviceID)
						}
					}
					return ids
				}
				for range 8 {
					send(100)
				}
				require.ElementsMatch(t, []string{"v1", "v2", "v1-south"}, told())
				s.open = func(fleet string, bucket int32) bool {
					return fleet == "north" && bucket == cassandra.OpenAlertBucket("v1")
				}
				for range 8 {
					send(20)
				}
				began := time.Now()
				require.Equal(t, []string{"v1"}, told(), "what was last known of the unreadable partition, and all of the others")
				require.Less(t, time.Since(began), 2*time.Minute)
				require.Equal(t, 1, p.unreadable.count())
				began = time.Now()
				told()
				require.Zero(t, time.Since(began), "it is skipped")
				s.open = nil
				time.Sleep(retryAfter)
				require.Empty(t, told(), "it is tried again")
				require.Zero(t, p.unreadable.count())
				p.finish(t)
			})
		})
		t.Run(fmt.Sprint("latest positions ", reason), func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				for _, fleet := range []string{"a-bad", "good"} {
					r := driving(time.Now(), 20)
					r.DeviceID, r.FleetID = fleet, fleet
					store.Write(&r)
				}
				s := &holes{reason: reason, latest: func(fleet string, _ int32) bool { return fleet == "a-bad" }}
				p := startOn(t, store, true, func(v *fakestore.View) Store { s.View = v; return s })
				time.Sleep(20 * time.Minute)
				require.Empty(t, p.ended)
				require.Len(t, fakestore.List[cassandra.Alert](store, cassandra.TableOpenAlerts, fakestore.KeyOf("good")), 1, "it is found to be offline")
				require.Equal(t, 1, p.unreadable.count())
				p.finish(t)
			})
		})
	}
}
