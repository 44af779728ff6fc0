package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
)

// geofenceRetry is the pause before geofences that could not be stored are stored again.
const geofenceRetry = 30 * time.Second

// geofenceRows are the geofences of one mutation: polygons may be large.
const geofenceRows = 20

// geofencePublisher stores the geofences in force for dashboards, at start and after each reload.
type geofencePublisher struct {
	rules   *rules
	logger  logrus.FieldLogger
	changed chan struct{} // holds one pending publication
}

func newGeofencePublisher(r *rules, logger logrus.FieldLogger) *geofencePublisher {
	p := &geofencePublisher{rules: r, logger: logger, changed: make(chan struct{}, 1)}
	p.notify()
	return p
}

// notify requests a publication. It does not wait.
func (p *geofencePublisher) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run publishes on each request until ctx ends, and retries while the store is unavailable.
func (p *geofencePublisher) Run(ctx context.Context, store *cassandra.Store) {
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		case <-retry:
		}
		retry = nil
		if err := p.publish(ctx, store); err != nil && ctx.Err() == nil {
			p.logger.WithError(err).Error("geofences are in force but could not be stored for dashboards, retrying")
			retry = time.After(geofenceRetry)
		}
	}
}

// publish stores the geofences of each fleet and deletes geofences that the files no longer have.
func (p *geofencePublisher) publish(ctx context.Context, store *cassandra.Store) error {
	if len(p.rules.config.GeofencesFiles) == 0 {
		return nil
	}
	byFleet := map[string][]cassandra.Geofence{}
	var shared []cassandra.Geofence
	for _, g := range p.rules.current.Load().geofences {
		if g.Fleet == geofence.AllFleets {
			shared = append(shared, geofenceRow(g))
		} else {
			byFleet[g.Fleet] = append(byFleet[g.Fleet], geofenceRow(g))
		}
	}
	fleets, err := store.Fleets(ctx)
	if err != nil {
		return fmt.Errorf("store geofences: %w", err)
	}
	for _, fleet := range fleets {
		if _, ok := byFleet[fleet]; !ok {
			byFleet[fleet] = nil
		}
	}
	writeTimeUs := time.Now().UnixMicro()
	for fleet, own := range byFleet {
		if err := replaceGeofences(ctx, store, fleet, slices.Concat(own, shared), writeTimeUs); err != nil {
			return fmt.Errorf("store geofences of fleet %q: %w", fleet, err)
		}
	}
	return nil
}

func replaceGeofences(ctx context.Context, store *cassandra.Store, fleet string, rows []cassandra.Geofence, writeTimeUs int64) error {
	stored, err := store.Geofences(ctx, fleet)
	if err != nil {
		return err
	}
	for _, old := range stored {
		if !slices.ContainsFunc(rows, func(g cassandra.Geofence) bool { return g.Name == old.Name }) {
			if err := store.ApplyGeofences(ctx, fleet, cassandra.Remove(writeTimeUs-1, old)); err != nil {
				return err
			}
		}
	}
	for part := range slices.Chunk(rows, geofenceRows) {
		if err := store.ApplyGeofences(ctx, fleet, cassandra.Put(writeTimeUs, part...)); err != nil {
			return err
		}
	}
	return nil
}

func geofenceRow(g geofence.Geofence) cassandra.Geofence {
	return cassandra.Geofence{
		FleetID: g.Fleet, Name: g.Name, Kind: g.Kind, Geometry: g.Geometry,
		RadiusM: g.RadiusM.Ptr(), SpeedLimitKmh: g.SpeedLimitKmh.Ptr(), DwellS: g.DwellS.Ptr(),
	}
}
