// Package ingest is the write side of the IoT API: devices and gateways post records over HTTP, each in the protocol
// that it speaks, and are answered once what they sent is in the journal, durably. From there the records go into the
// pipeline, in order, and stay in the journal until they are stored.
package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleettracing/fleet-tracing/etl/internal/httpserve"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Source serves the API. It implements pipeline.Source.
//
//	request ─► token ─► body ─► records ─► rate ─► journal ─► answer
//	                                                  └─► batches ─► pipeline ─► Done
type Source struct {
	Options
	mux         *http.ServeMux
	description []byte
	metrics     *metrics
	ids         ids
	tokenRates  *limiters
	deviceRates *limiters
	bodies      *semaphore.Weighted // bytes
	pending     *semaphore.Weighted // records
	slots       chan struct{}       // one for each append under way
	appends     sync.WaitGroup
	requests    gate
	connections *connections
	complained  httpserve.Complaint
}

// New makes a source; it takes requests when it runs. The error names the option that can't be used.
func New(o Options) (*Source, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("IoT API: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Full == nil {
		o.Full = func(error) bool { return false }
	}
	if o.Seen == nil {
		o.Seen = func(*telemetry.Record) telemetry.Seen { return telemetry.New }
	}
	description, err := describe(o.Describe)
	if err != nil {
		return nil, fmt.Errorf("IoT API: %w", err)
	}
	l := o.Limits
	s := &Source{
		Options: o, mux: http.NewServeMux(), description: description, metrics: newMetrics(o.Registerer), ids: newIDs(),
		tokenRates:  newLimiters(l.TokenRate, l.TokenBurst, l.Devices),
		deviceRates: newLimiters(l.DeviceRate, l.DeviceBurst, l.Devices),
		bodies:      semaphore.NewWeighted(l.MaxBodies), pending: semaphore.NewWeighted(int64(l.MaxPending)),
		slots: make(chan struct{}, l.MaxAppends),
	}
	s.connections = newConnections(l.MaxConnections, s.metrics.connections, s.metrics.evicted)
	s.route()
	return s, nil
}

// Name is the source's label.
func (s *Source) Name() string { return "httpapi" }

// Handler is the API without its server, which Run makes.
func (s *Source) Handler() http.Handler { return s }

// Run serves requests and hands what is in the journal to the pipeline until ctx ends. It then takes no more requests,
// lets those under way end within the time of grace, and returns after its last emit. It runs once.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	server := &http.Server{
		Handler: s, TLSConfig: s.TLS, ConnState: s.connections.state, ErrorLog: log.New(serverLog{s.Logger}, "", 0),
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
		return fmt.Errorf("serve the IoT API: %w", err)
	})
	g.Go(func() error { return s.pump(running, emit) })
	g.Go(func() error {
		<-running.Done()
		s.shutdown(server)
		return nil
	})
	return g.Wait()
}

func (s *Source) shutdown(server *http.Server) {
	ended := s.requests.close()
	s.connections.closeQuiet()
	ctx, cancel := context.WithTimeout(context.Background(), s.Limits.Grace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		s.Logger.WithField("grace", s.Limits.Grace.String()).Warn("requests under way were cut off: they were not accepted")
		_ = server.Close()
	}
	<-ended // a request waits for the journal no longer than AppendTimeout
	appended := make(chan struct{})
	go func() {
		defer close(appended)
		s.appends.Wait()
	}()
	select {
	case <-appended:
	case <-time.After(s.Limits.AppendTimeout):
		s.Logger.Error("the journal does not come back from a write: giving up on it")
	}
}

// gate counts the requests under way and, once closed, lets no more in.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside int
	empty  chan struct{}
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.closed && g.inside == 0 {
		close(g.empty)
	}
}

// close gives a channel that is closed when the last request has left. It is called once.
func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.empty = true, make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	return g.empty
}

// serverLog takes what package http has to say. Most of it is about peers that hang up or don't speak TLS, which is no
// news; a panic is.
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
