package api

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// Certificate is the TLS certificate of the server. It can be reloaded while the server runs.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads a certificate and its key from PEM files.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	apply, err := c.Prepare()
	if err != nil {
		return nil, err
	}
	apply()
	return c, nil
}

// Files returns the paths of the certificate and its key.
func (c *Certificate) Files() ([]string, error) { return []string{c.certFile, c.keyFile}, nil }

// Prepare reads the files, and returns a function that puts the certificate into use.
func (c *Certificate) Prepare() (apply func(), err error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	return func() { c.current.Store(&pair) }, nil
}

// TLSConfig returns a configuration that serves the current certificate.
func (c *Certificate) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}
