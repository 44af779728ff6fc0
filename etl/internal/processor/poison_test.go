package processor

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
)

// poison is a store in which requests about the device "bad" fail for good.
type poison struct {
	*fakestore.View
	kind   string           // of the requests that fail
	reason cassandra.Reason // empty: no answer comes at all
	healed atomic.Bool
}

func (s *poison) fails(ctx context.Context, kind, device string) error {
	if s.healed.Load() || s.kind != kind || device != "bad" {
		return nil
	}
	if s.reason == "" {
		<-ctx.Done()
		return &cassandra.Error{Op: kind, Reason: cassandra.ReasonCanceled, Err: ctx.Err()}
	}
	return &cassandra.Error{Op: kind, Reason: s.reason, Err: errors.New("too many of something")}
}

func (s *poison) ApplyTrips(ctx context.Context, id string, rows []cassandra.Mutation[cassandra.TripRow]) error {
	if err := s.fails(ctx, "write trips", id); err != nil {
		return err
	}
	return s.View.ApplyTrips(ctx, id, rows)
}

func (s *poison) ApplyDeviceDays(ctx context.Context, id string, rows []cassandra.Mutation[cassandra.DeviceDay]) error {
	if err := s.fails(ctx, "write states", id); err != nil {
		return err
	}
	return s.View.ApplyDeviceDays(ctx, id, rows)
}

// ApplyHours has rows of several devices.
func (s *poison) ApplyHours(ctx context.Context, rows []cassandra.Mutation[cassandra.HourRow]) error {
	for _, r := range rows {
		if err := s.fails(ctx, "write hours", r.Row.DeviceID); err != nil {
			return err
		}
	}
	return s.View.ApplyHours(ctx, rows)
}

func (s *poison) Positions(ctx context.Context, id string, day cassandra.Day) ([]cassandra.Telemetry, error) {
	if err := s.fails(ctx, "read history", id); err != nil {
		return nil, err
	}
	return s.View.Positions(ctx, id, day)
}

func (s *poison) LastDeviceDay(ctx context.Context, id string, day cassandra.Day) (cassandra.DeviceDay, bool, error) {
	if err := s.fails(ctx, "read state", id); err != nil {
		return cassandra.DeviceDay{}, false, err
	}
	return s.View.LastDeviceDay(ctx, id, day)
}

// ClaimsOfDevices reads claims of several devices.
func (s *poison) ClaimsOfDevices(ctx context.Context, ids ...string) ([]cassandra.Claim, error) {
	for _, id := range ids {
		if err := s.fails(ctx, "read claims", id); err != nil {
			return nil, err
		}
	}
	return s.View.ClaimsOfDevices(ctx, ids...)
}

// startPoisoned starts a process whose requests of a kind fail.
func startPoisoned(t *testing.T, store *fakestore.Store, kind string, reason cassandra.Reason) (*process, *poison) {
	t.Helper()
	s := &poison{kind: kind, reason: reason}
	p := startOn(t, store, true, func(v *fakestore.View) Store {
		s.View = v
		return s
	})
	return p, s
}

// A device whose rows can't be read or written costs itself only: the process goes on, and so does the one that takes over.
func TestBadDeviceCostsOnlyItself(t *testing.T) {
	for _, c := range []struct {
		kind   string
		reason cassandra.Reason
	}{
		{"write trips", cassandra.ReasonOther},
		{"write states", cassandra.ReasonOther},
		{"write hours", cassandra.ReasonOther},
		{"read history", cassandra.ReasonOther},
		{"read history", cassandra.ReasonFailure}, // too many tombstones
		{"read history", ""},
		{"read claims", cassandra.ReasonOther},
		{"read claims", cassandra.ReasonFailure},
		{"read claims", ""},
		{"read state", cassandra.ReasonOther},
		{"read state", cassandra.ReasonReadTimeout},
		{"read state", ""},
	} {
		kind := c.kind
		t.Run(kind+" "+string(c.reason), func(t *testing.T) {
			simulated(t, func(t *testing.T, store *fakestore.Store) {
				rng := rand.New(rand.NewPCG(1, 1))
				send := func(p *process, from, to time.Time) {
					t.Helper()
					for _, id := range []string{"bad", "good"} {
						records := drive(rng, id, from, to)
						if kind == "read history" { // late records have the device recomputed
							slices.Reverse(records)
						}
						for part := range slices.Chunk(records, 20) {
							require.NoError(t, p.store(part))
						}
					}
					time.Sleep(5 * time.Minute) // longer than it takes to unload a device
				}
				p, _ := startPoisoned(t, store, kind, c.reason)
				send(p, time.Now().Add(-20*time.Hour), time.Now().Add(-2*time.Hour))
				require.Empty(t, p.ended, "it runs")
				require.Equal(t, 1, p.failed())
				require.Zero(t, p.dirty())
				p.kill()

				heir, _ := startPoisoned(t, store, kind, c.reason)
				time.Sleep(5 * time.Minute)
				send(heir, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
				require.Empty(t, heir.ended, "the next process runs, too")
				require.Equal(t, 1, heir.failed())
				heir.finish(t)

				last, poison := startPoisoned(t, store, kind, c.reason)
				time.Sleep(5 * time.Minute)
				require.Equal(t, 1, last.failed(), "it was left to the next process")
				poison.healed.Store(true)
				time.Sleep(6 * time.Minute)
				require.Zero(t, last.failed(), "it is tried again")
				last.finish(t)
				requireFresh(t, store)
			})
		})
	}
}
