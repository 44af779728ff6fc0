package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/derive"
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
	"github.com/fleettracing/fleet-tracing/etl/internal/notifier"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The rhythm of what needs no setting.
const (
	deviceIdle  = 2 * time.Minute  // after which a device's state is stored and let go
	processDead = 30 * time.Second // without a sign of life
	alertResend = time.Minute
	alertWait   = 10 * time.Second
)

// zones are those of ETL_GEOFENCES_FILES, which change when the files are read again.
type zones struct {
	current atomic.Pointer[zonesRead]
}

type zonesRead struct {
	index       *geofence.Index // nil where there are no files
	list        []geofence.Zone
	fingerprint string
}

// find is the smallest zone of a fleet that a position lies in.
func (z *zones) find(fleet string, lat, lon float64) (string, bool) {
	if index := z.current.Load().index; index != nil {
		return index.Zone(fleet, lat, lon)
	}
	return "", false
}

// zones reads the files of zones.
func (p *program) zones() (*zones, error) {
	z := &zones{}
	read, err := p.readZones()
	z.current.Store(read)
	return z, err
}

func (p *program) readZones() (*zonesRead, error) {
	read := &zonesRead{}
	if len(p.config.GeofencesFiles) == 0 {
		return read, nil
	}
	h := sha256.New()
	var files []string
	for _, pattern := range p.config.GeofencesFiles {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("ETL_GEOFENCES_FILES %q: %w", pattern, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("ETL_GEOFENCES_FILES %q: there is no such file", pattern)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	var wrong []error
	for _, file := range slices.Compact(files) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("ETL_GEOFENCES_FILES: %w", err)
		}
		_, _ = h.Write(text) // a hash takes everything
		list, err := geofence.Parse(file, text)
		wrong = append(wrong, err)
		read.list = append(read.list, list...)
	}
	err := errors.Join(wrong...)
	if err == nil {
		read.index, err = geofence.NewIndex(read.list)
	}
	if err != nil {
		return nil, fmt.Errorf("ETL_GEOFENCES_FILES: %w", err)
	}
	read.fingerprint = hex.EncodeToString(h.Sum(nil)[:8])
	return read, nil
}

// engine makes the alerts' engine of the rules' file and the zones. fingerprint names what it goes by.
func (p *program) engine(z *zonesRead) (engine *alerting.Engine, fingerprint string, err error) {
	rules := alerting.DefaultRules()
	if file := p.config.AlertRulesFile; file != "" {
		text, err := os.ReadFile(file)
		if err == nil {
			rules, err = alerting.ParseRules(file, text)
		}
		if err != nil {
			return nil, "", fmt.Errorf("ETL_ALERT_RULES_FILE: %w", err)
		}
	}
	fingerprint = rules.Fingerprint() + z.fingerprint
	if z.index == nil {
		return alerting.New(rules, nil), fingerprint, nil
	}
	return alerting.New(rules, namedZones{z.index, z.fingerprint}), fingerprint, nil
}

// namedZones are zones that the engine tells from those it had before.
type namedZones struct {
	*geofence.Index
	fingerprint string
}

// Fingerprint names the zones.
func (z namedZones) Fingerprint() string { return z.fingerprint }

// derivation is what follows from stored records, and who is told.
type derivation struct {
	p         *program
	deriver   *derive.Deriver
	zones     *zones
	store     atomic.Pointer[cassandra.Store]
	manager   *notifier.Alertmanager // nil if there is none
	kafka     *notifier.Kafka        // nil if there is none
	receivers notifier.Receivers
}

func (p *program) derivation(x *parts, z *zones) (*derivation, error) {
	c := p.config
	engine, fingerprint, err := p.engine(z.current.Load())
	if err != nil {
		return nil, err
	}
	d := &derivation{p: p, zones: z}
	d.deriver = derive.New(derive.Options{
		Flush: c.ProcessorFlushInterval, Settle: c.ProcessorMaxClockSkew, Idle: deviceIdle, Devices: c.DevicesInMemory, NewsAge: c.AlertNotifyMaxAge,
		ProcessDead: processDead, Tell: func(events []telemetry.AlertEvent) { d.receivers.Notify(events) },
	}, engine, fingerprint, x.exec, p.logger, p.reg, time.Now)
	return d, nil
}

// open hands over the store.
func (d *derivation) open(store *cassandra.Store) {
	d.deriver.Open(derive.Stores{Sure: store.Strong(), Weak: store.Fallback()})
	d.store.Store(store) // last: whoever sees it asks the deriver
}

// listen makes the receivers of alerts.
func (d *derivation) listen() error {
	c := d.p.config
	if urls := alertmanagerURLs(c); len(urls) > 0 {
		open := func(ctx context.Context) ([]telemetry.Alert, error) {
			if d.store.Load() == nil {
				return nil, errNotReached
			}
			return d.deriver.OpenAlerts(ctx)
		}
		manager, err := notifier.NewAlertmanager(notifier.Options{
			URLs: urls, GrafanaURL: c.GrafanaURL, RunbookURL: c.RunbookURL, Resend: alertResend, Timeout: alertWait,
		}, open, d.p.logger, d.p.reg, time.Now)
		if err != nil {
			return fmt.Errorf("ETL_ALERTMANAGER_URLS: %w", err)
		}
		d.manager = manager
		d.receivers = append(d.receivers, manager)
	}
	if c.KafkaAlertTopic != "" {
		connection, err := kafkaConnection(c)
		if err != nil {
			return err
		}
		client, err := connection.Client()
		if err != nil {
			return fmt.Errorf("KAFKA_…: %w", err)
		}
		if d.kafka, err = notifier.NewKafka(client, c.KafkaAlertTopic, d.p.logger, d.p.reg, time.Now); err != nil {
			return fmt.Errorf("KAFKA_ALERT_TOPIC: %w", err)
		}
		d.receivers = append(d.receivers, d.kafka)
	}
	return nil
}

// reload reads rules and zones again at each SIGHUP until ctx ends. What can't be read changes nothing.
func (d *derivation) reload(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		read, err := d.p.readZones()
		var engine *alerting.Engine
		var fingerprint string
		if err == nil {
			engine, fingerprint, err = d.p.engine(read)
		}
		if err != nil {
			d.p.logger.WithError(err).Error("rules and zones are as they were: they can't be read")
			continue
		}
		d.zones.current.Store(read)
		d.deriver.SetEngine(engine, fingerprint)
		if err := d.storeZones(ctx); err != nil {
			d.p.logger.WithError(err).Error("zones are in force, but can't be stored for screens")
		}
		d.p.logger.WithFields(logrus.Fields{"zones": len(read.list)}).Info("rules and zones read again")
	}
}

// storeZones writes the zones for the screens that draw them, and takes away those that the files no longer have.
func (d *derivation) storeZones(ctx context.Context) error {
	store, list := d.store.Load(), d.zones.current.Load().list
	if store == nil || len(d.p.config.GeofencesFiles) == 0 {
		return nil
	}
	byFleet := map[string][]cassandra.Geofence{}
	for _, z := range list {
		if z.Fleet != geofence.AllFleets {
			byFleet[z.Fleet] = append(byFleet[z.Fleet], rowOf(z))
		}
	}
	fleets, err := store.Fleets(ctx)
	if err != nil {
		return err
	}
	for _, fleet := range fleets {
		if _, ok := byFleet[fleet]; !ok {
			byFleet[fleet] = nil
		}
	}
	now := time.Now().UnixMicro()
	for fleet, rows := range byFleet {
		for _, z := range list {
			if z.Fleet == geofence.AllFleets {
				rows = append(rows, rowOf(z))
			}
		}
		stored, err := store.Geofences(ctx, fleet)
		if err != nil {
			return err
		}
		for _, was := range stored {
			if !slices.ContainsFunc(rows, func(z cassandra.Geofence) bool { return z.Name == was.Name }) {
				if err := store.DeleteGeofence(ctx, fleet, was.Name, now-1); err != nil {
					return err
				}
			}
		}
		for part := range slices.Chunk(rows, 20) {
			if err := store.WriteGeofences(ctx, fleet, part, now); err != nil {
				return err
			}
		}
	}
	return nil
}

func rowOf(z geofence.Zone) cassandra.Geofence {
	return cassandra.Geofence{
		FleetID: z.Fleet, Name: z.Name, Kind: z.Kind, Geometry: z.Geometry,
		RadiusM: z.RadiusM.Ptr(), SpeedLimitKmh: z.SpeedLimitKmh.Ptr(), DwellS: z.DwellS.Ptr(),
	}
}

// stream runs sources until told to stop, with all that follows from what they bring.
func (p *program) stream(ctx context.Context, x *parts, sources []pipeline.Source) error {
	d := x.derivation
	if d == nil {
		return x.pipeline.Run(ctx, p.stop, sources...)
	}
	d.deriver.Sweep()
	if err := d.listen(); err != nil {
		return err
	}
	if d.kafka != nil {
		defer d.kafka.Close()
	}
	side, end := context.WithCancel(ctx)
	defer end()
	var sides errgroup.Group
	sides.Go(func() error { d.reload(side); return nil })
	sides.Go(func() error {
		if !d.reached(side) {
			return nil
		}
		if err := d.storeZones(side); err != nil && side.Err() == nil {
			p.logger.WithError(err).Error("zones can't be stored for screens; SIGHUP tries again")
		}
		return nil
	})
	if d.manager != nil {
		sides.Go(func() error {
			d.reached(side) // until then there is nothing to tell of
			return d.manager.Run(side)
		})
	}
	err := p.derived(ctx, x, false, sources...)
	end() // after the last alert was told of
	return errors.Join(err, sides.Wait())
}

// reached waits for the store; it tells whether it is there when ctx ends.
func (d *derivation) reached(ctx context.Context) bool {
	for d.store.Load() == nil {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// toEnd runs one source to its end, with all that follows from what it brings. It tells nobody itself; a process that
// streams tells of what is news.
func (p *program) toEnd(ctx context.Context, x *parts, source pipeline.Source) error {
	if x.derivation == nil {
		return x.pipeline.Run(ctx, p.stop, source)
	}
	if err := x.derivation.storeZones(ctx); err != nil {
		return err
	}
	return p.derived(ctx, x, true, source)
}

// derived runs sources, and then derives what is left to be.
func (p *program) derived(ctx context.Context, x *parts, wait bool, sources ...pipeline.Source) error {
	deriver := x.derivation.deriver
	g, running := errgroup.WithContext(ctx)
	stop, end := context.WithCancel(running)
	defer end()
	g.Go(func() error { return deriver.Run(running, stop) })
	g.Go(func() error {
		defer end()
		return x.pipeline.Run(running, p.stop, sources...)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	err := deriver.Finish(ctx, wait && p.stop.Err() == nil)
	if err != nil && ctx.Err() != nil {
		p.logger.WithError(err).Warn("all is stored, but not all that follows from it: the next process derives the rest")
		return nil
	}
	return err
}
