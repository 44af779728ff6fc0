// Package diagnose checks the way from the contact points to the stored data, stage by stage.
package diagnose

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
)

// Finding is the result of one stage of a diagnosis.
type Finding struct {
	Stage  string `json:"stage"` // tcp, tls, login, keyspace, tables, replicas, data
	Status Status `json:"status"`
	Detail string `json:"detail"`           // the observation
	Remedy string `json:"remedy,omitempty"` // the action, if any
}

// Status is the severity of a finding.
type Status string

// Values of Status.
const (
	OK      Status = "ok"
	Warning Status = "warning" // it works, but needs attention
	Error   Status = "error"   // later stages cannot work
	Skipped Status = "skipped"
)

// Run checks the way from the contact points to the latest record, stage by stage, and stops at the first failure.
// It opens connections of its own, so it reports the current state. It reads the records of the given fleets only, or of every
// fleet if none is given.
func Run(ctx context.Context, cfg cassandra.Config, logger logrus.FieldLogger, fleets ...string) (findings []Finding) {
	d := diagnosis{cfg: cfg.WithDefaults(), logger: logger, fleets: fleets}
	for _, stage := range []struct {
		name  string
		check func(context.Context) Finding
	}{
		{"tcp", d.tcp}, {"tls", d.tls}, {"login", d.login},
		{"keyspace", d.keyspace}, {"tables", d.tables}, {"replicas", d.replicas}, {"data", d.data},
	} {
		finding := stage.check(ctx)
		finding.Stage = stage.name
		findings = append(findings, finding)
		if finding.Status == Error {
			break
		}
	}
	if d.admin != nil {
		d.admin.Close()
	}
	return findings
}

type diagnosis struct {
	cfg    cassandra.Config
	logger logrus.FieldLogger
	fleets []string // to read; none: every fleet

	reached     []string // contact points that accept TCP connections
	admin       *cassandra.Admin
	replication cassandra.Replication
}

func ok(format string, args ...any) Finding {
	return Finding{Status: OK, Detail: fmt.Sprintf(format, args...)}
}

func failed(err error, remedy string) Finding {
	return Finding{Status: Error, Detail: err.Error(), Remedy: remedy}
}

func (d *diagnosis) tcp(ctx context.Context) Finding {
	setting := d.cfg.Setting("CASSANDRA_HOSTS")
	if len(d.cfg.Hosts) == 0 {
		return failed(errors.New("no contact points"), "Set "+setting+".")
	}
	errs := make([]error, len(d.cfg.Hosts))
	var dials sync.WaitGroup
	start := time.Now()
	for i, contact := range d.cfg.Hosts {
		dials.Go(func() {
			conn, err := (&net.Dialer{Timeout: d.cfg.ConnectTimeout}).DialContext(ctx, "tcp", net.JoinHostPort(splitHost(contact, d.cfg.Port)))
			if errs[i] = err; err == nil {
				conn.Close()
			}
		})
	}
	dials.Wait()
	took := time.Since(start).Round(100 * time.Microsecond)
	failures := ""
	for i, err := range errs {
		if err != nil {
			failures += "; " + err.Error()
		} else {
			d.reached = append(d.reached, d.cfg.Hosts[i])
		}
	}
	f := ok("%d of %d contact points answer within %s%s", len(d.reached), len(d.cfg.Hosts), took, failures)
	if len(d.reached) == 0 {
		f.Status, f.Remedy = Error, "Check the names in "+setting+" and the DNS of this server, that Cassandra is running, that the port is its native_transport_port, and that no firewall blocks it."
	} else if failures != "" {
		f.Status, f.Remedy = Warning, "Check the nodes that don't answer, or remove them from "+setting+"."
	}
	return f
}

func (d *diagnosis) tls(ctx context.Context) Finding {
	if d.cfg.TLS == nil {
		return Finding{Status: Skipped, Detail: "not configured"}
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: d.cfg.ConnectTimeout}, Config: d.cfg.TLS}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(splitHost(d.reached[0], d.cfg.Port)))
	if err != nil {
		return failed(err, "Check that the port serves TLS, that the CA certificate signed the node's certificate, and that the server name is in it.")
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	f := ok("%s", tls.VersionName(state.Version))
	if len(state.PeerCertificates) > 0 {
		f.Detail += ", certificate valid until " + state.PeerCertificates[0].NotAfter.Format(time.DateOnly)
	}
	return f
}

func (d *diagnosis) login(ctx context.Context) Finding {
	cfg := d.cfg
	cfg.Hosts = d.reached
	var err error
	if d.admin, err = cassandra.Connect(ctx, cfg, "", d.logger); err != nil {
		if cassandra.ReasonOf(err) == cassandra.ReasonUnauthorized {
			return failed(err, "Check "+cfg.Setting("CASSANDRA_USERNAME")+" and "+cfg.Setting("CASSANDRA_PASSWORD")+".")
		}
		return failed(err, "Check that this is Cassandra's CQL port, and whether the server requires TLS.")
	}
	d.cfg.LocalDC = d.admin.LocalDC()
	release, cluster, err := d.admin.Version(ctx)
	if err != nil {
		return failed(err, grantSystem)
	}
	as := "no login"
	if cfg.Username != "" {
		as = "user " + cfg.Username
	}
	return ok("cluster %q, Cassandra %s, %s", cluster, release, as)
}

const grantSystem = "Grant the user SELECT on the system keyspaces."

func (d *diagnosis) keyspace(ctx context.Context) Finding {
	var err error
	if d.replication, err = d.admin.Replication(ctx); err != nil {
		return failed(err, "Check "+d.cfg.Setting("CASSANDRA_KEYSPACE")+"; fleet-etl schema apply creates a missing keyspace.")
	}
	return ok("%s, replication %s", d.cfg.Keyspace, d.replication)
}

func (d *diagnosis) tables(ctx context.Context) Finding {
	differences, err := schema.CheckColumns(ctx, d.admin)
	if err != nil {
		return failed(err, grantSystem)
	}
	if len(differences) > 0 {
		return failed(errors.New(strings.Join(differences, "; ")), "Run fleet-etl schema apply, then fleet-etl schema check.")
	}
	return ok("%d tables, all columns present", len(schema.Tables()))
}

func (d *diagnosis) replicas(ctx context.Context) Finding {
	nodes, err := d.admin.Nodes(ctx)
	if err != nil {
		return failed(err, grantSystem)
	}
	setting := d.cfg.Setting("CASSANDRA_DC")
	if err := d.admin.CheckLocalDC(ctx); err != nil {
		return failed(err, "Set "+setting+" to one of these.")
	}
	if err := d.admin.CheckConsistency(d.replication); err != nil {
		return failed(err, "")
	}
	var parts []string
	for dc, n := range d.replication {
		parts = append(parts, fmt.Sprintf("%s: %d replica(s) on %d node(s)", dc, n, nodes[dc]))
	}
	slices.Sort(parts)
	f := ok("%s; local data center %s, reads at %s", strings.Join(parts, ", "), d.cfg.LocalDC, d.cfg.ReadConsistency)
	if d.replication["*"] == 0 && d.replication[d.cfg.LocalDC] == 0 {
		f.Status, f.Remedy = Warning, "The local data center has no replica: every read goes to another one. Set "+setting+" to one with replicas."
	}
	return f
}

// fleetsDiagnosed is the number of fleets that are searched for the latest record, to keep the diagnosis quick.
const fleetsDiagnosed = 20

func (d *diagnosis) data(ctx context.Context) Finding {
	grant := "Grant the user SELECT on keyspace " + d.cfg.Keyspace + ", or lower the read consistency level."
	cfg := d.cfg
	cfg.Hosts, cfg.ReadRetries, cfg.ReadsInFlight = d.reached, 0, 0
	s, err := cassandra.Open(ctx, cfg, d.logger, nil)
	if err != nil {
		return failed(err, "")
	}
	defer s.Close()
	fleets := d.fleets
	if len(fleets) == 0 {
		if fleets, err = s.Fleets(ctx); err != nil {
			return failed(err, grant)
		}
	}
	if len(fleets) == 0 {
		return Finding{Status: Warning, Detail: "no fleet has sent a record yet", Remedy: "Load data with: fleet-etl load FILE, or fleet-etl run."}
	}
	seen := fleets[:min(len(fleets), fleetsDiagnosed)]
	var newest time.Time
	vehicles := 0
	for _, fleet := range seen {
		rows, err := s.LatestOfFleet(ctx, fleet)
		if err != nil {
			return failed(err, grant)
		}
		vehicles += len(rows)
		for i := range rows {
			if rows[i].Ts.After(newest) {
				newest = rows[i].Ts
			}
		}
	}
	if vehicles == 0 {
		return Finding{Status: Warning, Detail: fmt.Sprintf("%d fleet(s) without a record", len(seen)), Remedy: "Check the names of the fleets, or load data with: fleet-etl load FILE, or fleet-etl run."}
	}
	first := ""
	if len(seen) < len(fleets) {
		first = fmt.Sprintf(" in the first %d", len(seen))
	}
	return ok("%d fleet(s), %d vehicle(s)%s, latest record %s old", len(fleets), vehicles, first, time.Since(newest).Round(time.Second))
}

func splitHost(contact string, port int) (host, service string) {
	if host, service, err := net.SplitHostPort(contact); err == nil {
		return host, service
	}
	return strings.Trim(contact, "[]"), strconv.Itoa(port)
}
