package processor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// slowHistory is a store that notes the devices whose history is read, each once.
type slowHistory struct {
	*fakestore.View
	mu      sync.Mutex
	devices []string
}

func (s *slowHistory) Positions(ctx context.Context, id string, day cassandra.Day) ([]cassandra.Telemetry, error) {
	s.mu.Lock()
	if !slices.Contains(s.devices, id) {
		s.devices = append(s.devices, id)
	}
	s.mu.Unlock()
	time.Sleep(time.Second)
	return s.View.Positions(ctx, id, day)
}

// A fleet whose late records make many devices dirty does not delay the recomputation of another fleet's device.
func TestFleetsAreRecomputedInTurn(t *testing.T) {
	simulated(t, func(t *testing.T, store *fakestore.Store) {
		time.Sleep(25 * 24 * time.Hour)
		s := &slowHistory{}
		p := startOn(t, store, true, func(v *fakestore.View) Store {
			s.View = v
			return s
		})
		record := func(fleet, device string, ago time.Duration) telemetry.Record {
			return telemetry.Record{DeviceID: device, FleetID: fleet, TimeMs: time.Now().Add(-ago).UnixMilli(), Lat: 1, Lon: 1}
		}
		send := func(ago time.Duration, fleet string, devices int) {
			var records []telemetry.Record
			for i := range devices {
				records = append(records, record(fleet, fmt.Sprint(fleet, i), ago))
			}
			require.NoError(t, p.store(records))
		}
		send(0, "north", 1)
		send(0, "flood", 500)
		time.Sleep(7 * time.Second)
		send(time.Hour, "north", 1)
		time.Sleep(time.Second)
		send(20*24*time.Hour, "flood", 500) // the last to send goes first
		time.Sleep(time.Minute)
		s.mu.Lock()
		devices := slices.Clone(s.devices)
		s.mu.Unlock()
		p.kill()
		require.Contains(t, devices, "north0")
		require.Less(t, slices.Index(devices, "north0"), 8, "as many are read in parallel")
		require.Less(t, len(devices), 100, "of 500")
	})
}
