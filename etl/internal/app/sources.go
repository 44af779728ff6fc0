package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/query"
	"github.com/fleettracing/fleet-tracing/etl/internal/canary"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/generator"
	"github.com/fleettracing/fleet-tracing/etl/internal/source/kafka"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// closers ends what sources are made of, the newest first.
type closers []func() error

func (c closers) close() error {
	var failed []error
	for i := len(c) - 1; i >= 0; i-- {
		failed = append(failed, c[i]())
	}
	return errors.Join(failed...)
}

// sources makes those of ETL_SOURCES. What they are made of is to be closed when the pipeline has ended, also after an
// error.
func (p *program) sources(x *parts) (sources []pipeline.Source, made closers, err error) {
	for _, name := range p.config.Sources {
		var s pipeline.Source
		var end closers
		switch name {
		case "generator":
			s, err = p.generator()
		case "httpapi":
			s, end, err = p.httpAPI(x)
		case "kafka":
			s, err = p.kafka()
		default:
			err = fmt.Errorf("ETL_SOURCES %q: no such source", name)
		}
		made = append(made, end...)
		if err != nil {
			return nil, made, err
		}
		sources = append(sources, s)
	}
	if p.config.CanaryInterval > 0 {
		s, err := p.canary(x)
		if err != nil {
			return nil, made, fmt.Errorf("canary: %w", err)
		}
		sources = append(sources, s)
	}
	return sources, made, nil
}

// fleets are those that may send, our own among them; none is any.
func (p *program) fleets() []string {
	if len(p.config.Fleets) == 0 {
		return nil
	}
	return append(slices.Clone(p.config.Fleets), canary.Fleet)
}

// canary is the vehicle of our own. Each process has its own, which the directory of its state tells apart on one host.
func (p *program) canary(x *parts) (pipeline.Source, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	dir, err := filepath.Abs(p.config.StateDir)
	if err != nil {
		return nil, err
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(dir)) // a hash takes everything
	device := canary.DeviceOf(fmt.Sprintf("%s-%x", host, h.Sum32()))
	return canary.New(canary.Options{Interval: p.config.CanaryInterval, Device: device}, func(ctx context.Context, deviceID string, tsMs int64) (bool, error) {
		store := x.store.Load()
		if store == nil {
			return false, errNotReached
		}
		ts := time.UnixMilli(tsMs)
		found, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: deviceID, From: ts, To: ts})
		return len(found.Rows) > 0, err
	}, p.logger, p.reg, time.Now)
}

func (p *program) generator() (pipeline.Source, error) {
	c := p.config
	return generator.NewSource(generator.SourceOptions{Pace: true, Options: generator.Options{
		Seed: c.GeneratorSeed, Vehicles: c.GeneratorVehicles, Fleets: c.GeneratorFleets, Interval: c.GeneratorInterval,
		Late: c.GeneratorLate, Duplicate: c.GeneratorDuplicate, Broken: c.GeneratorBroken,
	}})
}

// httpAPI is the IoT API with its spool, and the reads on the same server.
//
//	devices ─► httpapi ─► spool ─► pipeline
//	people  ─► readapi ─► cache ─► store
func (p *program) httpAPI(x *parts) (_ pipeline.Source, made closers, err error) {
	c := p.config
	tokens, err := p.tokens()
	if err != nil {
		return nil, nil, err
	}
	certificate, err := apiTLS(c)
	if err != nil {
		return nil, nil, err
	}
	journal, err := spool.Open(c.SpoolDir, spool.Options{MaxBytes: c.SpoolMaxBytes, SegmentBytes: spoolSegment}, p.logger, p.reg, time.Now)
	if err != nil {
		return nil, nil, fmt.Errorf("ETL_SPOOL_DIR: %w", err)
	}
	made = append(made, journal.Close)
	listener, err := net.Listen("tcp", c.HTTPAddress)
	if err != nil {
		return nil, made, fmt.Errorf("ETL_HTTP_ADDRESS %q: %w; choose another", c.HTTPAddress, err)
	}
	made = append(made, func() error { _ = listener.Close(); return nil }) // by Run already, unless it never ran
	reads, end, err := p.readAPI(x, tokens)
	made = append(made, end...)
	if err != nil {
		return nil, made, err
	}
	description, err := asJSON(query.OpenAPI)
	if err != nil {
		return nil, made, fmt.Errorf("description of the reads: %w", err)
	}
	validator, seen := validate.NewBounds(c.Fleets), &recent{deduper: validate.NewDeduplicator(c.DedupeRecords)}
	s, err := ingest.New(ingest.Options{
		Listener: listener, TLS: certificate, Tokens: tokens, Limits: apiLimits(c),
		Journal: journal, Full: func(err error) bool { return errors.Is(err, spool.ErrFull) },
		Check: validator.Check, Seen: seen.see,
		Mount: reads.Mount, Describe: description,
		Logger: p.logger, Registerer: p.reg, Now: time.Now,
	})
	if err == nil {
		p.logger.WithField("address", listener.Addr().String()).Info("serving the IoT API")
	}
	return s, made, err
}

func asJSON(text []byte) ([]byte, error) {
	var document map[string]any
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	return json.Marshal(document)
}

// spoolSegment is the size of a file of the spool: small enough to be let go of soon, large enough to be rare.
const spoolSegment = 16 << 20

func (p *program) readAPI(x *parts, tokens *ingest.Tokens) (*query.API, closers, error) {
	c := p.config
	var made closers
	var cache query.Cache
	switch {
	case c.RedisURL != "":
		shared, err := query.NewRedisCache(query.RedisOptions{URL: c.RedisURL}, time.Now, p.logger, p.reg)
		if err != nil {
			return nil, nil, fmt.Errorf("ETL_REDIS_URL: %w", err)
		}
		cache, made = shared, append(made, shared.Close)
	case c.ReadCacheBytes > 0:
		memory, err := query.NewMemoryCache(uint64(c.ReadCacheBytes))
		if err != nil {
			return nil, nil, fmt.Errorf("ETL_READ_CACHE_BYTES: %w", err)
		}
		cache, made = memory, append(made, func() error { memory.Close(); return nil })
	}
	api := query.New(query.Options{
		Store: func() (query.Store, bool) {
			store := x.store.Load()
			return store, store != nil
		},
		Authorize: func(r *http.Request) (fleet string, read, write, ok bool) {
			grant, ok := tokens.Authenticate(r)
			return grant.Fleet, grant.Read, grant.Write, ok
		},
		Cache: cache, Now: time.Now, Logger: p.logger, Registry: p.reg,
	})
	return api, append(made, func() error { api.Close(); return nil }), nil
}

// tokens reads the file of tokens, and again at each SIGHUP.
func (p *program) tokens() (*ingest.Tokens, error) {
	c := p.config
	if c.HTTPTokens == "" {
		p.logger.WithField("fleet", c.HTTPOpenFleet).Warn("the IoT API is open to everybody (ETL_HTTP_OPEN_FLEET)")
		return ingest.OpenAccess(c.HTTPOpenFleet), nil
	}
	tokens, err := ingest.LoadTokens(c.HTTPTokens)
	if err != nil {
		return nil, fmt.Errorf("ETL_HTTP_TOKENS_FILE: %w", err)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-p.ctx.Done():
				return
			case <-hangups:
			}
			if err := tokens.Reload(); err != nil {
				p.logger.WithError(err).Error("tokens are as they were: the file can't be read")
				continue
			}
			p.logger.Info("tokens read again")
		}
	}()
	return tokens, nil
}

// recent remembers which records the API took lately, for its answers.
type recent struct {
	mu      sync.Mutex
	deduper *validate.Deduplicator
}

func (r *recent) see(record *telemetry.Record) telemetry.Seen {
	complete := *record
	validate.Normalize(&complete)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deduper.Add(complete.KeyHash(), complete.PayloadHash())
}

func (p *program) kafka() (pipeline.Source, error) {
	c := p.config
	connection, err := kafkaConnection(c)
	if err != nil {
		return nil, err
	}
	s, err := kafka.New(kafka.Options{
		Connection: connection, Topics: c.KafkaTopics, Group: c.KafkaGroup, Start: c.KafkaStart,
		BatchRecords: c.KafkaBatchRecords, FetchMaxBytes: c.KafkaFetchMaxBytes, CommitInterval: c.KafkaCommitInterval,
		RevokeWait: c.KafkaRevokeWait, SessionTimeout: c.KafkaSessionTimeout,
		DrainWait: max(c.DrainTimeout-2*time.Second, time.Second), // so that its commit still goes out
		Logger:    p.logger, Registerer: p.reg,
	})
	if err != nil {
		return nil, fmt.Errorf("KAFKA_…: %w", err)
	}
	return s, nil
}
