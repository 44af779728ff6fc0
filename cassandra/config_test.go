package cassandra

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseReplication(t *testing.T) {
	r, err := ParseReplication("dc2=2, dc1=3")
	require.NoError(t, err)
	require.Equal(t, Replication{"dc1": 3, "dc2": 2}, r)
	require.Equal(t, "dc1=3,dc2=2", r.String())
	require.Equal(t, 5, r.Total())
	require.Equal(t, "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 2}", r.CQL())
	for bad, want := range map[string]string{
		"": "DATACENTER=REPLICAS", "dc1": "DATACENTER=REPLICAS", "dc1=": "DATACENTER=REPLICAS", "dc1=0": "DATACENTER=REPLICAS",
		"dc1=x": `"dc1=x" is not`, "=2": "DATACENTER=REPLICAS", "dc1=1,dc1=2": `"dc1" is listed twice`, "dc1'=1": "DATACENTER=REPLICAS",
	} {
		_, err := ParseReplication(bad)
		require.ErrorContains(t, err, want, bad)
	}
}

func TestConfigDefaults(t *testing.T) {
	c := Config{Fanout: 4}.WithDefaults()
	require.Equal(t, Config{
		Port: 9042, ReadConsistency: "LOCAL_ONE", Timeout: 5 * time.Second, ConnectTimeout: 5 * time.Second, Connections: 2, Fanout: 4,
	}, c)
	c.Settings = map[string]string{"CASSANDRA_HOSTS": "Contact points"}
	require.Equal(t, "Contact points", c.Setting("CASSANDRA_HOSTS"))
	require.Equal(t, "CASSANDRA_DC", c.Setting("CASSANDRA_DC"))
}

func TestNewTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})

	c, err := NewTLS(certificate, certificate, private, "cassandra.example", false)
	require.NoError(t, err)
	require.Equal(t, "cassandra.example", c.ServerName)
	require.EqualValues(t, tls.VersionTLS12, c.MinVersion)
	require.NotNil(t, c.RootCAs)
	require.Len(t, c.Certificates, 1)
	c, err = NewTLS(nil, nil, nil, "", true)
	require.NoError(t, err)
	require.Nil(t, c.RootCAs, "the system's roots")
	require.True(t, c.InsecureSkipVerify)

	_, err = NewTLS([]byte("not PEM"), nil, nil, "", false)
	require.EqualError(t, err, "TLS authority: it contains no PEM certificate")
	_, err = NewTLS(nil, certificate, nil, "", false)
	require.ErrorContains(t, err, "TLS certificate and key: ")
}
