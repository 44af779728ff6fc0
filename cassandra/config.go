// Package cassandra is the store: the schema, the session, the typed statements and reads, and the driver's metrics.
// It is the only package that imports the driver; everybody else speaks in its row types and reasons.
package cassandra

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says how to reach the cluster and how it keeps data. The zero value of a field other than Hosts and Keyspace
// takes the default that its comment names.
type Config struct {
	Hosts    []string // contact points, host or host:port
	Port     int      // CQL port of contact points that name none; 9042
	Keyspace string
	LocalDC  string // data centre whose nodes are spoken to; empty: that of the first contact point that answers

	Username string
	Password string
	TLS      *tls.Config // nil: plain text

	// Levels by name (ONE, TWO, LOCAL_QUORUM, …). Empty write level: TWO, or ONE where the keyspace has a single
	// replica. Empty read level: LOCAL_ONE.
	WriteConsistency string
	ReadConsistency  string

	Timeout        time.Duration // of one request; 5 s: longer than the server's own, so that its answer is heard
	ConnectTimeout time.Duration // 5 s
	Connections    int           // to each node; 2
	Fanout         int           // partitions that one read asks for at once; 16
	ReadsInFlight  int           // partitions that all reads together ask for at once; 0: no bound
	ReadRetries    int           // times that a failed read is sent to another node; 0: the caller retries

	// Settings renames the settings that errors speak of: from the name of the environment variable
	// (CASSANDRA_HOSTS, …) to what the caller's user knows it by.
	Settings map[string]string

	alone bool // speak to the contact points alone, not to the nodes that they name
	hasty bool // changes of the schema are not waited for
}

// setting is the name by which the user knows a setting.
func (c Config) setting(variable string) string {
	if name, ok := c.Settings[variable]; ok {
		return name
	}
	return variable
}

func (c Config) withDefaults() Config {
	setDefault(&c.Port, 9042)
	setDefault(&c.ReadConsistency, "LOCAL_ONE")
	setDefault(&c.Timeout, 5*time.Second)
	setDefault(&c.ConnectTimeout, 5*time.Second)
	setDefault(&c.Connections, 2)
	setDefault(&c.Fanout, 16)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Replication is the number of replicas in each data centre.
type Replication map[string]int

// ParseReplication reads "dc1=2,dc2=2".
func ParseReplication(s string) (Replication, error) {
	r := Replication{}
	for _, part := range strings.Split(s, ",") {
		dc, n, ok := strings.Cut(strings.TrimSpace(part), "=")
		factor, err := strconv.Atoi(n)
		if !ok || dc == "" || strings.ContainsAny(dc, `'"`) || err != nil || factor < 1 {
			return nil, fmt.Errorf("replication %q: %q is not DATACENTRE=REPLICAS, for example dc1=2,dc2=2", s, part)
		}
		if _, twice := r[dc]; twice {
			return nil, fmt.Errorf("replication %q: data centre %q is named twice", s, dc)
		}
		r[dc] = factor
	}
	return r, nil
}

// String gives the form that ParseReplication reads, sorted by data centre.
func (r Replication) String() string {
	parts := make([]string, 0, len(r))
	for _, dc := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, fmt.Sprintf("%s=%d", dc, r[dc]))
	}
	return strings.Join(parts, ",")
}

// Total is the number of replicas over all data centres.
func (r Replication) Total() int {
	total := 0
	for _, n := range r {
		total += n
	}
	return total
}

// cql gives the replication as a CQL map.
func (r Replication) cql() string {
	var b strings.Builder
	b.WriteString("{'class': 'NetworkTopologyStrategy'")
	for _, dc := range slices.Sorted(maps.Keys(r)) {
		fmt.Fprintf(&b, ", '%s': %d", dc, r[dc])
	}
	b.WriteString("}")
	return b.String()
}

// NewTLS makes a TLS configuration from PEM texts. Empty ca: the system's roots. Certificate and key come both or
// not at all. Empty serverName: the name of the node that is dialled.
func NewTLS(ca, certificate, key []byte, serverName string, skipVerify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, InsecureSkipVerify: skipVerify} //nolint:gosec // an administrator's own choice
	if len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("TLS authority: no PEM certificate in it")
		}
	}
	if len(certificate) > 0 || len(key) > 0 {
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("TLS certificate and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
