package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// writeCertificate writes a self-signed certificate of localhost and its key.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return certificate
}

func TestCertificateIsReloadedWhileServing(t *testing.T) {
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	roots := x509.NewCertPool()
	roots.AddCert(writeCertificate(t, certFile, keyFile, 1))
	config, certificate, err := LoadTLS(certFile, keyFile)
	require.NoError(t, err)
	r := start(t, func(o *settings) { o.server.TLS = config })
	r.url = strings.Replace(r.url, "http:", "https:", 1)
	served := func() int64 {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get(r.url + "/v1/openapi.json")
		require.NoError(t, err)
		defer response.Body.Close()
		return response.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	require.Equal(t, int64(1), served())

	require.NoError(t, os.WriteFile(certFile, []byte("half a certificate"), 0o600))
	_, err = certificate.Load()
	require.ErrorContains(t, err, "TLS certificate")
	require.Equal(t, int64(1), served(), "a failed reload keeps the certificate")

	roots.AddCert(writeCertificate(t, certFile, keyFile, 2))
	apply, err := certificate.Load()
	require.NoError(t, err)
	apply()
	require.Equal(t, int64(2), served())
}
