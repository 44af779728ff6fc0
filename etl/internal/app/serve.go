package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
)

// readyTimeout bounds the answer to /-/ready.
const readyTimeout = 3 * time.Second

// operationsServer serves metrics, health, readiness, reload and, if enabled, profiles at ETL_METRICS_ADDRESS.
type operationsServer struct {
	listener net.Listener
	server   *http.Server
	logger   logrus.FieldLogger
	done     chan struct{}
}

// operationsOptions are the settings of an operationsServer.
type operationsOptions struct {
	Address  string
	Gatherer *prometheus.Registry
	Ready    func(context.Context) error // an error means that the process can't store records at the moment
	Reload   func() error                // nil: POST /-/reload is disabled
	Pprof    bool
}

// newOperationsServer listens on the address.
func newOperationsServer(o operationsOptions, logger logrus.FieldLogger) (*operationsServer, error) {
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("ETL_METRICS_ADDRESS %q: %w; use another address, or an empty value to disable it", o.Address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{Registry: o.Gatherer, EnableOpenMetrics: true}))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, nil) })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		writeStatus(w, o.Ready(ctx))
	})
	mux.HandleFunc("POST /-/reload", func(w http.ResponseWriter, _ *http.Request) {
		if o.Reload == nil {
			http.Error(w, "reload by request is disabled; set ETL_RELOAD_ENABLED=true, or send SIGHUP", http.StatusForbidden)
			return
		}
		if err := o.Reload(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	if o.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return &operationsServer{
		listener: listener, server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, logger: logger, done: make(chan struct{}),
	}, nil
}

// Addr returns the address that the server listens on.
func (s *operationsServer) Addr() net.Addr { return s.listener.Addr() }

// Start serves until Stop.
func (s *operationsServer) Start() {
	go func() {
		defer close(s.done)
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.logger.WithError(err).Error("metrics server failed")
		}
	}()
	s.logger.WithField("address", s.Addr().String()).Info("serving metrics")
}

// Stop ends the server and gives requests in progress a second to complete.
func (s *operationsServer) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close()
	}
	<-s.done
}

// writeStatus answers 200, or 503 with the reason.
func writeStatus(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	body := map[string]string{"status": "ok"}
	if err != nil {
		body = map[string]string{"status": "unavailable", "reason": err.Error()}
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}
