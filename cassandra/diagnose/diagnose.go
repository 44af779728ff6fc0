// Package diagnose checks the way from the contact points to the stored data, stage by stage.
package diagnose

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
)

// Finding is the result of one stage of a diagnosis.
type Finding struct {
	Stage  string `json:"stage"` // address, tcp, tls, login, keyspace, tables, replicas, data
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
// It opens connections of its own, so it reports the current state.
func Run(ctx context.Context, cfg cassandra.Config, logger logrus.FieldLogger) []Finding {
	d := diagnosis{cfg: cfg.WithDefaults(), logger: logger}
	for _, stage := range []func(context.Context) Finding{d.addresses, d.tcp, d.tls, d.login, d.keyspace, d.tables, d.replicas, d.data} {
		finding := stage(ctx)
		d.findings = append(d.findings, finding)
		if finding.Status == Error {
			break
		}
	}
	if d.admin != nil {
		d.admin.Close()
	}
	return d.findings
}

type diagnosis struct {
	cfg      cassandra.Config
	logger   logrus.FieldLogger
	findings []Finding

	reached     []string // contact points that accept TCP connections
	admin       *cassandra.Admin
	replication cassandra.Replication
}

func (d *diagnosis) addresses(ctx context.Context) Finding {
	const stage = "address"
	if len(d.cfg.Hosts) == 0 {
		return Finding{stage, Error, "no contact points", "Set " + d.cfg.Setting("CASSANDRA_HOSTS") + "."}
	}
	var found, failed []string
	for _, contact := range d.cfg.Hosts {
		host, _ := splitHost(contact, d.cfg.Port)
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", host, err))
			continue
		}
		found = append(found, host+" is "+strings.Join(addresses, ", "))
	}
	switch {
	case len(found) == 0:
		return Finding{stage, Error, strings.Join(failed, "; "), "Check the names in " + d.cfg.Setting("CASSANDRA_HOSTS") + " and the DNS of this server."}
	case len(failed) > 0:
		return Finding{stage, Warning, strings.Join(append(failed, found...), "; "), "Remove the names that don't resolve from " + d.cfg.Setting("CASSANDRA_HOSTS") + "."}
	}
	return Finding{Stage: stage, Status: OK, Detail: strings.Join(found, "; ")}
}

func (d *diagnosis) tcp(ctx context.Context) Finding {
	const stage = "tcp"
	failures := make([]string, len(d.cfg.Hosts))
	took := make([]time.Duration, len(d.cfg.Hosts))
	var g errgroup.Group
	for i, contact := range d.cfg.Hosts {
		g.Go(func() error {
			host, port := splitHost(contact, d.cfg.Port)
			start := time.Now()
			conn, err := (&net.Dialer{Timeout: d.cfg.ConnectTimeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
			if err != nil {
				failures[i] = err.Error()
				return nil
			}
			took[i] = time.Since(start)
			return conn.Close()
		})
	}
	_ = g.Wait() // failures hold what went wrong
	var slowest time.Duration
	for i, contact := range d.cfg.Hosts {
		if failures[i] == "" {
			d.reached = append(d.reached, contact)
			slowest = max(slowest, took[i])
		}
	}
	failures = slices.DeleteFunc(failures, func(s string) bool { return s == "" })
	switch {
	case len(d.reached) == 0:
		return Finding{stage, Error, strings.Join(failures, "; "),
			"Check that Cassandra is running, that the port is its native_transport_port, and that no firewall blocks it."}
	case len(failures) > 0:
		return Finding{stage, Warning, fmt.Sprintf("%d of %d contact points answer; %s", len(d.reached), len(d.cfg.Hosts), strings.Join(failures, "; ")),
			"Check the nodes that don't answer, or remove them from " + d.cfg.Setting("CASSANDRA_HOSTS") + "."}
	}
	return Finding{Stage: stage, Status: OK, Detail: fmt.Sprintf("%d of %d contact points answer within %s", len(d.reached), len(d.cfg.Hosts), slowest.Round(100*time.Microsecond))}
}

func (d *diagnosis) tls(ctx context.Context) Finding {
	const stage = "tls"
	if d.cfg.TLS == nil {
		return Finding{Stage: stage, Status: Skipped, Detail: "not configured"}
	}
	host, port := splitHost(d.reached[0], d.cfg.Port)
	cfg := d.cfg.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: d.cfg.ConnectTimeout}, Config: cfg}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return Finding{stage, Error, err.Error(),
			"Check that the port serves TLS, that the CA certificate signed the node's certificate, and that the server name is in it."}
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	detail := tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 {
		detail += ", certificate valid until " + state.PeerCertificates[0].NotAfter.Format(time.DateOnly)
	}
	return Finding{Stage: stage, Status: OK, Detail: detail}
}

func (d *diagnosis) login(ctx context.Context) Finding {
	const stage = "login"
	cfg := d.cfg
	cfg.Hosts = d.reached
	var err error
	if cfg.LocalDC == "" {
		cfg.LocalDC, err = cassandra.NearestDC(ctx, cfg, d.logger)
	}
	if err == nil {
		d.admin, err = cassandra.Connect(ctx, cfg, d.logger)
	}
	if err != nil {
		remedy := "Check that this is Cassandra's CQL port, and whether the server requires TLS."
		if cassandra.ReasonOf(err) == cassandra.ReasonUnauthorized {
			remedy = "Check " + cfg.Setting("CASSANDRA_USERNAME") + " and " + cfg.Setting("CASSANDRA_PASSWORD") + "."
		}
		return Finding{stage, Error, err.Error(), remedy}
	}
	d.cfg.LocalDC = cfg.LocalDC
	release, cluster, err := d.admin.Version(ctx)
	if err != nil {
		return Finding{stage, Error, err.Error(), grantSystem}
	}
	as := "no login"
	if cfg.Username != "" {
		as = "user " + cfg.Username
	}
	return Finding{Stage: stage, Status: OK, Detail: fmt.Sprintf("cluster %q, Cassandra %s, %s", cluster, release, as)}
}

const grantSystem = "Grant the user SELECT on the system keyspaces."

func (d *diagnosis) keyspace(ctx context.Context) Finding {
	const stage = "keyspace"
	replication, err := d.admin.Replication(ctx)
	if err != nil {
		return Finding{stage, Error, err.Error(), "Check " + d.cfg.Setting("CASSANDRA_KEYSPACE") + "; fleet-etl schema apply creates a missing keyspace."}
	}
	d.replication = replication
	return Finding{Stage: stage, Status: OK, Detail: d.cfg.Keyspace + ", replication " + replication.String()}
}

func (d *diagnosis) tables(ctx context.Context) Finding {
	const stage = "tables"
	differences, err := schema.CheckColumns(ctx, d.admin)
	if err != nil {
		return Finding{stage, Error, err.Error(), grantSystem}
	}
	if len(differences) > 0 {
		return Finding{stage, Error, strings.Join(differences, "; "), "Run fleet-etl schema apply, then fleet-etl schema check."}
	}
	return Finding{Stage: stage, Status: OK, Detail: fmt.Sprintf("%d tables, all columns present", len(schema.Tables()))}
}

func (d *diagnosis) replicas(ctx context.Context) Finding {
	const stage = "replicas"
	nodes, err := d.admin.Nodes(ctx)
	if err != nil {
		return Finding{stage, Error, err.Error(), grantSystem}
	}
	if err := d.admin.CheckLocalDC(ctx); err != nil {
		return Finding{stage, Error, err.Error(), "Set " + d.cfg.Setting("CASSANDRA_DC") + " to one of these."}
	}
	if err := d.admin.CheckConsistency(d.replication); err != nil {
		return Finding{stage, Error, err.Error(), ""}
	}
	var parts []string
	for dc, n := range d.replication {
		parts = append(parts, fmt.Sprintf("%s: %d replica(s) on %d node(s)", dc, n, nodes[dc]))
	}
	slices.Sort(parts)
	detail := strings.Join(parts, ", ") + "; local data center " + d.cfg.LocalDC + ", reads at " + d.cfg.ReadConsistency
	if d.replication["*"] == 0 && d.replication[d.cfg.LocalDC] == 0 {
		return Finding{stage, Warning, detail, "The local data center has no replica: every read goes to another one. Set " + d.cfg.Setting("CASSANDRA_DC") + " to one with replicas."}
	}
	return Finding{Stage: stage, Status: OK, Detail: detail}
}

// fleetsDiagnosed is the number of fleets that are searched for the latest record, to keep the diagnosis quick.
const fleetsDiagnosed = 20

func (d *diagnosis) data(ctx context.Context) Finding {
	const stage = "data"
	grant := "Grant the user SELECT on keyspace " + d.cfg.Keyspace + ", or lower the read consistency level."
	cfg := d.cfg
	cfg.Hosts, cfg.ReadRetries, cfg.ReadsInFlight = d.reached, 0, 0
	s, err := cassandra.Open(ctx, cfg, d.logger, nil)
	if err != nil {
		return Finding{stage, Error, err.Error(), ""}
	}
	defer s.Close()
	fleets, err := s.Fleets(ctx)
	if err != nil {
		return Finding{stage, Error, err.Error(), grant}
	}
	if len(fleets) == 0 {
		return Finding{stage, Warning, "no fleet has sent a record yet", "Load data with: fleet-etl load FILE, or fleet-etl run."}
	}
	seen := fleets[:min(len(fleets), fleetsDiagnosed)]
	var newest time.Time
	vehicles := 0
	for _, fleet := range seen {
		rows, err := s.LatestOfFleet(ctx, fleet)
		if err != nil {
			return Finding{stage, Error, err.Error(), grant}
		}
		vehicles += len(rows)
		for i := range rows {
			if rows[i].Ts.After(newest) {
				newest = rows[i].Ts
			}
		}
	}
	detail := fmt.Sprintf("%d fleet(s), %d vehicle(s)", len(fleets), vehicles)
	if len(seen) < len(fleets) {
		detail = fmt.Sprintf("%d fleet(s), %d vehicle(s) in the first %d", len(fleets), vehicles, len(seen))
	}
	age := time.Since(newest).Round(time.Second)
	return Finding{Stage: stage, Status: OK, Detail: fmt.Sprintf("%s, latest record %s old", detail, age)}
}

func splitHost(contact string, port int) (host, service string) {
	if host, service, err := net.SplitHostPort(contact); err == nil {
		return host, service
	}
	return strings.Trim(contact, "[]"), strconv.Itoa(port)
}
