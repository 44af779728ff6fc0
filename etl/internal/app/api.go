package app

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/cache"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/query"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
	"github.com/fleettracing/fleet-tracing/etl/internal/spool"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
	"github.com/fleettracing/fleet-tracing/etl/internal/validate"
)

// spoolSegment is the size of a spool file: small enough to be freed soon, large enough to be rare.
const spoolSegment = 16 << 20

// api makes the server of the HTTP API.
//
//	devices ─┬─► api ─► ingest ─► spool ─► pipeline
//	clients ─┘     └─► query ─► cache ─► store
func (p *program) api(x *parts) (_ pipeline.Source, made closers, err error) {
	c := p.config
	tokens, err := p.tokens()
	if err != nil {
		return nil, nil, err
	}
	x.apiFiles = append(x.apiFiles, reload.Target{Name: "API tokens", Files: tokens.Files, Load: tokens.Prepare})
	var serverTLS *tls.Config
	if c.APITLSCert != "" {
		certificate, err := api.LoadCertificate(c.APITLSCert, c.APITLSKey)
		if err != nil {
			return nil, nil, fmt.Errorf("ETL_API_TLS_CERT_FILE and ETL_API_TLS_KEY_FILE: %w", err)
		}
		serverTLS = certificate.TLSConfig()
		x.apiFiles = append(x.apiFiles, reload.Target{Name: "API certificate", Files: certificate.Files, Load: certificate.Prepare})
	}
	buffer, err := spool.Open(c.SpoolDir, spool.Options{MaxBytes: c.SpoolMaxBytes, SegmentBytes: spoolSegment}, p.logger, p.reg, time.Now)
	if err != nil {
		return nil, nil, fmt.Errorf("ETL_SPOOL_DIR: %w", err)
	}
	made = append(made, buffer.Close)
	listener, err := net.Listen("tcp", c.APIAddress)
	if err != nil {
		return nil, made, fmt.Errorf("ETL_API_ADDRESS %q: %w; choose another", c.APIAddress, err)
	}
	made = append(made, func() error { _ = listener.Close(); return nil }) // Run closes it too, if it ever runs
	queries, end, err := p.queries(x)
	made = append(made, end...)
	if err != nil {
		return nil, made, err
	}
	serverLimits, ingestLimits := apiLimits(c)
	receiver := ingest.New(ingest.Options{
		Spool: buffer, Check: validate.NewBounds(c.Fleets).Check, Seen: (&recent{deduplicator: validate.NewDeduplicator(c.DedupeRecords)}).see,
		Limits: ingestLimits, Logger: p.logger, Registerer: p.reg, Now: time.Now,
	})
	server, err := api.New(api.Options{
		Listener: listener, TLS: serverTLS, Tokens: tokens, Ingest: receiver, Query: queries,
		Limits: serverLimits, Logger: p.logger, Registerer: p.reg, Now: time.Now,
	})
	if err != nil {
		return nil, made, err
	}
	p.logger.WithField("address", listener.Addr().String()).Info("serving the HTTP API")
	return server, made, nil
}

func (p *program) queries(x *parts) (*query.API, closers, error) {
	c := p.config
	var made closers
	o := query.Options{
		Store: func() (query.Store, bool) {
			return x.connector.Get()
		},
		Now: time.Now, Logger: p.logger, Registry: p.reg,
	}
	switch {
	case c.APIRedisURL != "":
		shared, err := cache.NewRedis(cache.RedisOptions{URL: c.APIRedisURL}, p.logger, p.reg)
		if err != nil {
			return nil, nil, fmt.Errorf("ETL_API_REDIS_URL: %w", err)
		}
		o.Cache, made = shared, append(made, shared.Close)
	case c.APICacheBytes > 0:
		memory, err := cache.NewMemory(uint64(c.APICacheBytes))
		if err != nil {
			return nil, nil, fmt.Errorf("ETL_API_CACHE_BYTES: %w", err)
		}
		o.Cache, made = memory, append(made, func() error { memory.Close(); return nil })
	}
	queries := query.New(o)
	return queries, append(made, func() error { queries.Close(); return nil }), nil
}

func (p *program) tokens() (*auth.Tokens, error) {
	c := p.config
	if c.APITokens == "" {
		p.logger.WithField("fleet", c.APIOpenFleet).Warn("the HTTP API is open to everybody (ETL_API_OPEN_FLEET)")
		return auth.OpenAccess(c.APIOpenFleet), nil
	}
	tokens, err := auth.Load(c.APITokens)
	if err != nil {
		return nil, fmt.Errorf("ETL_API_TOKENS_FILE: %w", err)
	}
	return tokens, nil
}

// recent remembers the latest records of the API, for its responses.
type recent struct {
	mu           sync.Mutex
	deduplicator *validate.Deduplicator
}

func (r *recent) see(record *telemetry.Record) telemetry.Seen {
	normal := *record
	validate.Normalize(&normal)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deduplicator.Add(normal.KeyHash(), normal.PayloadHash())
}
