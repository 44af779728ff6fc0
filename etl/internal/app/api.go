package app

import (
	"context"
	"crypto/tls"
	"errors"
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

// api creates the server of the HTTP API.
//
//	devices ─┬─► api ─► ingest ─► spool ─► pipeline
//	clients ─┘     └─► query ─► cache ─► store
func (a *App) api() (pipeline.Source, error) {
	c := a.config
	tokens, err := a.tokens()
	if err != nil {
		return nil, err
	}
	var serverTLS *tls.Config
	if c.APITLSCert != "" {
		var target reload.Target
		if serverTLS, target, err = api.LoadTLS(c.APITLSCert, c.APITLSKey); err != nil {
			return nil, fmt.Errorf("ETL_API_TLS_CERT_FILE and ETL_API_TLS_KEY_FILE: %w", err)
		}
		a.reloads = append(a.reloads, target)
	}
	spools, err := spool.OpenLanes(c.SpoolDir, spoolLanes, spool.Options{MaxBytes: c.SpoolMaxBytes}, a.logger, a.reg, time.Now)
	if err != nil {
		return nil, fmt.Errorf("ETL_SPOOL_DIR: %w", err)
	}
	lanes := make([]ingest.Spool, len(spools))
	for i, s := range spools {
		lanes[i] = s
		a.cleanups.add("spool", s.Close)
	}
	listener, err := net.Listen("tcp", c.APIAddress)
	if err != nil {
		return nil, fmt.Errorf("ETL_API_ADDRESS %q: %w; use another address", c.APIAddress, err)
	}
	a.apiAddr = listener.Addr()
	a.cleanups.add("API listener", func() error { _ = listener.Close(); return nil }) // the server closes it too, if it ever runs
	queries, err := a.queries()
	if err != nil {
		return nil, err
	}
	serverLimits, ingestLimits := apiLimits(c)
	receiver := ingest.New(ingest.Options{
		Spool: lanes[0], Lanes: lanes[1:], Check: validate.NewBounds(c.Fleets).Check, CheckOwner: a.registry.Check, Seen: (&recent{deduplicator: validate.NewDeduplicator(c.DedupeRecords)}).see,
		Reject: func(ctx context.Context, origin string, rejected []pipeline.Rejected) error {
			return a.pipeline.Reject(ctx, api.Name, origin, rejected)
		},
		Limits: ingestLimits, Logger: a.logger, Registerer: a.reg, Now: time.Now,
	})
	server, err := api.New(api.Options{
		Listener: listener, TLS: serverTLS, Tokens: tokens, Ingest: receiver, Query: queries,
		Limits: serverLimits, Logger: a.logger, Registerer: a.reg, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	a.logger.WithField("address", a.apiAddr.String()).Info("serving the HTTP API")
	return server, nil
}

// spoolLanes is the number of lanes of the spool: one for all fleets, and others for fleets that send more than is stored.
const spoolLanes = 9

func (a *App) queries() (*query.API, error) {
	c := a.config
	o := query.Options{
		Store: func() (query.Store, bool) {
			return a.connector.Get()
		},
		Now: time.Now, Logger: a.logger, Registry: a.reg,
	}
	switch {
	case c.APIRedisURL != "":
		shared, err := cache.NewRedis(cache.RedisOptions{URL: c.APIRedisURL}, a.logger, a.reg)
		if err != nil {
			return nil, fmt.Errorf("ETL_API_REDIS_URL: %w", err)
		}
		o.Cache = shared
		a.cleanups.add("Redis cache", shared.Close)
	case c.APICacheBytes > 0:
		memory := cache.NewMemory(uint64(c.APICacheBytes))
		o.Cache = memory
		a.cleanups.add("cache", func() error { memory.Close(); return nil })
	}
	queries := query.New(o)
	a.cleanups.add("queries", func() error { queries.Close(); return nil })
	return queries, nil
}

// tokensStrict is the value of ETL_API_TOKENS_MODE with which an invalid tokens file revokes all tokens.
const tokensStrict = "strict"

func (a *App) tokens() (*auth.Tokens, error) {
	c := a.config
	switch {
	case c.APITokens == "" && c.APIOpenFleet == "":
		return nil, errors.New("ETL_API_TOKENS_FILE: set it to a tokens file (fleet-etl token creates one), or set ETL_API_OPEN_FLEET to allow everyone")
	case c.APITokens == "":
		a.logger.WithField("fleet", c.APIOpenFleet).Warn("the HTTP API is open to everybody (ETL_API_OPEN_FLEET)")
		return auth.OpenAccess(c.APIOpenFleet), nil
	}
	tokens, err := auth.Load(c.APITokens)
	if err != nil {
		return nil, fmt.Errorf("ETL_API_TOKENS_FILE: %w", err)
	}
	if c.APITokensMode == tokensStrict {
		tokens.Failed = func() {
			tokens.RevokeAll()
			a.logger.WithField("file", c.APITokens).Error("tokens file invalid, every token is rejected until it is valid (ETL_API_TOKENS_MODE=strict)")
		}
	}
	a.reloads = append(a.reloads, tokens.Target)
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
	return r.deduplicator.Add(&normal)
}
