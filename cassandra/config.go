// Package cassandra is the store: a session on the keyspace, a small store type for each concern, and the driver's metrics.
// It and its subpackages are the only ones that import the driver: callers see row types and reasons of errors.
package cassandra

import (
	"cmp"
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

// Config says how to reach the cluster and how it keeps data. The zero value of a field means the default that its
// comment names. Hosts and Keyspace have none.
type Config struct {
	Hosts    []string // contact points, host or host:port
	Port     int      // CQL port of contact points without one; 9042
	Keyspace string
	LocalDC  string // data center of the coordinators; empty: that of the first contact point that answers

	Username string
	Password string
	TLS      *tls.Config // nil: plain text

	// Consistency levels by name, such as ONE or LOCAL_QUORUM. Writes default to TWO, or to ONE if the keyspace has a
	// single replica. Reads default to LOCAL_ONE.
	WriteConsistency string
	ReadConsistency  string

	Timeout        time.Duration // of one request; 5 s, longer than the server's own, so that the server's error arrives
	ConnectTimeout time.Duration // 5 s
	Connections    int           // to each node; 2
	Fanout         int           // partitions that one call reads in parallel; 16
	ReadsInFlight  int           // partitions that all calls together read in parallel; 0: unlimited
	ReadRetries    int           // how often a failed read is sent to another node; 0: the caller retries

	// Settings maps the names of settings in error messages, such as CASSANDRA_HOSTS, to the names that the user of the
	// caller knows.
	Settings map[string]string

	alone bool // connect to the contact points only, not to the nodes that they report
}

// Setting is the name of a setting that the user knows.
func (c Config) Setting(variable string) string {
	if name, ok := c.Settings[variable]; ok {
		return name
	}
	return variable
}

// WithDefaults returns the configuration with defaults in place of zero values.
func (c Config) WithDefaults() Config {
	c.Port = cmp.Or(c.Port, 9042)
	c.ReadConsistency = cmp.Or(c.ReadConsistency, "LOCAL_ONE")
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 5*time.Second)
	c.Connections = cmp.Or(c.Connections, 2)
	c.Fanout = cmp.Or(c.Fanout, 16)
	return c
}

// Replication is the number of replicas in each data center.
type Replication map[string]int

// ParseReplication reads "dc1=2,dc2=2".
func ParseReplication(s string) (Replication, error) {
	r := Replication{}
	for _, part := range strings.Split(s, ",") {
		dc, n, ok := strings.Cut(strings.TrimSpace(part), "=")
		factor, err := strconv.Atoi(n)
		if !ok || dc == "" || strings.ContainsAny(dc, `'"`) || err != nil || factor < 1 {
			return nil, fmt.Errorf("replication %q: %q is not DATACENTER=REPLICAS, for example dc1=2,dc2=2", s, part)
		}
		if _, twice := r[dc]; twice {
			return nil, fmt.Errorf("replication %q: data center %q is listed twice", s, dc)
		}
		r[dc] = factor
	}
	return r, nil
}

// String returns the form that ParseReplication reads, sorted by data center.
func (r Replication) String() string {
	parts := make([]string, 0, len(r))
	for _, dc := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, fmt.Sprintf("%s=%d", dc, r[dc]))
	}
	return strings.Join(parts, ",")
}

// Total is the number of replicas in all data centers.
func (r Replication) Total() int {
	total := 0
	for _, n := range r {
		total += n
	}
	return total
}

// CQL returns the replication as a CQL map.
func (r Replication) CQL() string {
	parts := []string{"'class': 'NetworkTopologyStrategy'"}
	for _, dc := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, fmt.Sprintf("'%s': %d", dc, r[dc]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// NewTLS makes a TLS configuration from PEM texts. An empty ca means the system's root certificates. Certificate and key
// are given both or not at all. An empty serverName means the name of the dialed node.
func NewTLS(ca, certificate, key []byte, serverName string, skipVerify bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, InsecureSkipVerify: skipVerify} //nolint:gosec // the administrator's choice
	if len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("TLS authority: it contains no PEM certificate")
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
