package api

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
)

// LoadTLS reads a certificate and its key from PEM files. It returns a configuration that serves the certificate, and the
// target that reloads the certificate while the server runs.
func LoadTLS(certFile, keyFile string) (*tls.Config, reload.Target, error) {
	var current atomic.Pointer[tls.Certificate]
	target, err := reload.Open("API certificate", &current, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("TLS certificate: %w", err)
		}
		return &pair, nil
	}, certFile, keyFile)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}, target, err
}
