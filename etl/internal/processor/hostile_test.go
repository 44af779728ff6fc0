package processor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fakestore"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/registry"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// A fleet that sends everything it can for the devices of another changes nothing that the other has, and learns nothing.
func TestHostileFleetChangesNothing(t *testing.T) {
	all := seeds(t)
	for _, seed := range all[:max(1, len(all)/4)] { // a seed takes as long as four of the others
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			var alone, together, hostileAlone, hostile []string
			synctest.Test(t, func(t *testing.T) { alone, _ = rowsOfTwoFleets(t, seed, true, false) })
			synctest.Test(t, func(t *testing.T) { _, hostileAlone = rowsOfTwoFleets(t, seed, false, true) })
			synctest.Test(t, func(t *testing.T) { together, hostile = rowsOfTwoFleets(t, seed, true, true) })
			require.Greater(t, len(alone), 500)
			require.Equal(t, alone, together, "rows of the honest fleet")
			require.Greater(t, len(hostile), 50)
			require.Equal(t, hostileAlone, hostile, "rows of the hostile fleet")
		})
	}
}

// rowsOfTwoFleets runs a day of the fleets north, which is honest, and evil, which also sends records of north's devices.
func rowsOfTwoFleets(t *testing.T, seed uint64, withHonest, withHostile bool) (north, evil []string) {
	honest, hostile := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
	store := fakestore.New()
	time.Sleep(48 * time.Hour)
	p := start(t, store, true)
	gate := openGate(t, p)
	from := time.Now()
	var tracks [][]telemetry.Record
	for i := range 3 {
		track := drive(honest, fmt.Sprint("truck-", i), from.Add(-8*time.Hour), from)
		for j := range track {
			track[j].FleetID = "north"
		}
		tracks = append(tracks, track)
	}
	own := drive(hostile, "evil-0", from.Add(-8*time.Hour), from)
	for j := range own {
		own[j].FleetID = "evil"
	}
	for i := range 300 {
		for _, track := range tracks {
			if i < len(track) && withHonest {
				gate("north", track[i])
			}
		}
		if i < len(own) && withHostile {
			gate("evil", own[i])
		}
		// Before the owner has sent, the device is new to everybody: the attack begins behind the first records.
		if withHostile && withHonest {
			for _, track := range tracks {
				gate("evil", attack(hostile, track, i)...)
			}
		}
		time.Sleep(10 * time.Second)
	}
	time.Sleep(time.Hour) // every device is offline
	p.finish(t)
	requireFresh(t, store)
	return rowsOf(store, "north", "truck-"), rowsOf(store, "evil", "evil-")
}

// attack returns records of another fleet's device, such as a sender can make who knows all that was sent.
func attack(rng *rand.Rand, track []telemetry.Record, i int) []telemetry.Record {
	r := track[min(i, len(track)-1)]
	r.FleetID, r.Lat, r.Lon = "evil", 1+rng.Float64(), 1
	switch rng.IntN(5) {
	case 0: // the same instant, with and without the optional values
	case 1:
		r.TimeMs = time.Now().Add(telemetry.MaxAhead - time.Second).UnixMilli()
	case 2: // between two records
		r.TimeMs -= 1 + rng.Int64N(20_000)
	case 3:
		r.TimeMs -= rng.Int64N(29 * 24 * time.Hour.Milliseconds())
	case 4: // an alert that ends, or opens
		r.TimeMs++
	}
	if rng.IntN(2) == 0 {
		r.SpeedKmh, r.BatteryPct = telemetry.Optional[float64]{}, telemetry.Some(int32(rng.IntN(100)))
	}
	stolen := r
	stolen.FleetID = "north" // what the API rejects by the token; reprocessing may set it
	return []telemetry.Record{r, stolen}
}

// openGate returns a function that stores what a sender may write.
func openGate(t *testing.T, p *process) func(sender string, records ...telemetry.Record) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	reg := prometheus.NewRegistry()
	g := registry.New(registry.Options{Unknown: registry.Accept}, executor.New(executor.Options{MaxInFlight: 64, RetryRate: 100}, logger, reg, time.Now), logger, reg, time.Now)
	in, out, ended := make(chan pipeline.ValidBatch), make(chan pipeline.ValidBatch), make(chan error, 1)
	go func() { ended <- g.Run(p.ctx, p.view, in, out) }()
	t.Cleanup(func() { <-ended })
	return func(sender string, records ...telemetry.Record) {
		b := pipeline.ValidBatch{Done: func() {}, Reject: func(context.Context, []pipeline.RejectedItem) error { return nil }}
		for _, r := range records {
			if g.Check(sender, &r) == nil {
				b.Items = append(b.Items, pipeline.Item{Record: r, Sender: sender})
			}
		}
		in <- b
		var allowed []telemetry.Record
		for _, item := range (<-out).Items {
			allowed = append(allowed, item.Record)
		}
		if len(allowed) > 0 {
			require.NoError(t, p.store(allowed))
		}
	}
}

// rowsOf returns the rows of a fleet, and the history of its devices.
func rowsOf(store *fakestore.Store, fleet, devices string) (rows []string) {
	add := func(table string, row any) {
		text, _ := json.Marshal(row) // plain structs
		if strings.Contains(string(text), `"`+fleet+`"`) {
			rows = append(rows, table+" "+string(text))
		}
	}
	for _, table := range []string{cassandra.TableAlerts, cassandra.TableDeviceAlerts, cassandra.TableOpenAlerts, cassandra.TableHours, cassandra.TableAnalytics, cassandra.TableTrips} {
		for _, c := range store.Cells(table) {
			add(table, c.Row)
		}
	}
	for id, records := range store.Records() {
		for _, r := range records {
			if strings.HasPrefix(id, devices) {
				add(cassandra.TableHistory, r)
			}
		}
	}
	slices.Sort(rows)
	return rows
}
