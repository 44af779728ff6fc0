// Package api is the HTTP API: one server that receives records and answers queries, with one authentication, one error
// format (RFC 9457) and one OpenAPI document.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/ingest"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/query"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Name is the source of the records of a Server.
const Name = "api"

// Options are what a Server needs. All fields but TLS must be set.
type Options struct {
	Listener net.Listener // Run closes it
	TLS      *tls.Config  // nil: plain HTTP
	Tokens   *auth.Tokens
	Ingest   *ingest.Ingest
	Query    *query.API

	Limits     Limits
	Logger     logrus.FieldLogger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Limits bound what connections can make the server do.
type Limits struct {
	MaxConnections int           // beyond it a new connection evicts one that waits for its peer
	HeaderTimeout  time.Duration // for the header of a request
	ReadTimeout    time.Duration // for a whole request
	WriteTimeout   time.Duration // from the header to the end of the response; more than ReadTimeout and the time for the spool
	IdleTimeout    time.Duration // between two requests on a connection
	Grace          time.Duration // for requests in progress during a shutdown
}

// DefaultLimits suit some thousand devices.
func DefaultLimits() Limits {
	return Limits{
		MaxConnections: 5_000, HeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second,
		IdleTimeout: 2 * time.Minute, Grace: 5 * time.Second,
	}
}

// Server serves the API. It implements pipeline.Source.
//
//	request ─► route ─► token and right ─┬─► ingest ─► spool ─► pipeline
//	                                     └─► query ─► cache ─► store
type Server struct {
	Options
	router      *rest.Router
	requests    sync.RWMutex // read-locked by each request in progress; write-locked for good by the shutdown
	connections *connections
}

// New makes a server. It accepts requests while Run runs.
func New(o Options) (*Server, error) {
	document, err := openAPIRoute()
	if err != nil {
		return nil, fmt.Errorf("API: %w", err)
	}
	routes := append(append(o.Ingest.Routes(), o.Query.Routes()...), document)
	s := &Server{Options: o, connections: newConnections(o.Limits.MaxConnections, o.Registerer)}
	s.router = rest.NewRouter(rest.Options{Routes: routes, Tokens: o.Tokens, Logger: o.Logger, Registerer: o.Registerer, Now: o.Now})
	return s, nil
}

// Name implements pipeline.Source.
func (s *Server) Name() string { return Name }

// Run serves until ctx ends, and passes what it receives to the pipeline. Requests in progress end within the grace period.
// Run returns after its last emit. Call it once.
func (s *Server) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	server := &http.Server{
		Handler: s, TLSConfig: s.TLS, ConnState: s.connections.state, ConnContext: s.connections.context, ErrorLog: log.New(serverLog{s.Logger}, "", 0),
		ReadHeaderTimeout: s.Limits.HeaderTimeout, ReadTimeout: s.Limits.ReadTimeout, WriteTimeout: s.Limits.WriteTimeout,
		IdleTimeout: s.Limits.IdleTimeout, MaxHeaderBytes: 16 << 10,
	}
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		var err error
		if s.TLS != nil {
			err = server.ServeTLS(s.Listener, "", "")
		} else {
			err = server.Serve(s.Listener)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve the API: %w", err)
	})
	g.Go(func() error { return s.Ingest.Run(running, emit) })
	g.Go(func() error {
		<-running.Done()
		s.shutdown(server)
		return nil
	})
	return g.Wait()
}

func (s *Server) shutdown(server *http.Server) {
	ended := make(chan struct{})
	go func() {
		s.requests.Lock() // from now on new requests are rejected
		close(ended)
	}()
	s.connections.closeIdle()
	ctx, cancel := context.WithTimeout(context.Background(), s.Limits.Grace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		s.Logger.WithField("grace", s.Limits.Grace.String()).Warn("requests in progress aborted, their records were not accepted")
		_ = server.Close()
	}
	<-ended // a request waits for the spool no longer than AppendTimeout
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.requests.TryRLock() {
		s.router.Reject(w, r, rest.Temporary(rest.ShuttingDown, "the server is shutting down", "retry after Retry-After", time.Second, nil))
		return
	}
	defer s.requests.RUnlock()
	s.connections.serve(s.router, w, r)
}

// serverLog receives the messages of package http. Most are about peers that disconnect or do not speak TLS.
type serverLog struct{ logger logrus.FieldLogger }

func (l serverLog) Write(line []byte) (int, error) {
	message := l.logger.WithField("message", string(bytes.TrimSpace(line)))
	if bytes.Contains(line, []byte("panic")) {
		message.Error("http server")
	} else {
		message.Debug("http server")
	}
	return len(line), nil
}
