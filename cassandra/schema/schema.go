// Package schema creates and checks the keyspace: its tables, which the .cql files beside it define, and the roles of users.
package schema

import (
	"context"
	"embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

//go:embed *.cql
var files embed.FS

// validName is the form of the names of keyspaces and roles.
var validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// timeout is that of a schema change, for which nodes wait for each other and for their disks.
const timeout = time.Minute

func connect(ctx context.Context, cfg cassandra.Config, keyspace string, logger logrus.FieldLogger) (*cassandra.Admin, error) {
	cfg.Timeout = max(cfg.Timeout, timeout)
	return cassandra.Connect(ctx, cfg, keyspace, logger)
}

// Apply creates a missing keyspace with the given replication, and missing tables and columns. It resets table options
// that differ from the schema, and changes nothing else that exists. It can be repeated at any time. It returns an error
// if the nodes cannot hold the replication, or the replication cannot serve the consistency levels.
func Apply(ctx context.Context, cfg cassandra.Config, replication cassandra.Replication, logger logrus.FieldLogger) error {
	if !validName.MatchString(cfg.Keyspace) {
		return fmt.Errorf("keyspace %q (CASSANDRA_KEYSPACE): use 1 to 48 characters of a-z0-9_, a letter first", cfg.Keyspace)
	}
	statements, err := render(cfg.Keyspace, replication)
	if err != nil {
		return err
	}
	if err := applyKeyspace(ctx, cfg, replication, statements[0], logger); err != nil {
		return err
	}
	admin, err := connect(ctx, cfg, cfg.Keyspace, logger)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.Exec(ctx, statements[1:]...); err != nil {
		return err
	}
	want := parse(statements)
	columns, err := admin.Columns(ctx)
	if err != nil {
		return err
	}
	options, err := admin.TableOptions(ctx)
	if err != nil {
		return err
	}
	added, _ := compareColumns(want, columns)
	changed, _ := compareOptions(want, options)
	return admin.Exec(ctx, slices.Concat(added, changed)...)
}

func applyKeyspace(ctx context.Context, cfg cassandra.Config, replication cassandra.Replication, statement string, logger logrus.FieldLogger) error {
	admin, err := connect(ctx, cfg, "", logger)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.CheckLocalDC(ctx); err != nil {
		return err
	}
	if err := checkReplicas(ctx, admin, replication); err != nil {
		return err
	}
	if err := admin.CheckConsistency(replication); err != nil {
		return err
	}
	if err := admin.Exec(ctx, statement); err != nil {
		return err
	}
	existing, err := admin.Replication(ctx)
	if err != nil || existing.String() == replication.String() {
		return err
	}
	logger.WithFields(logrus.Fields{"keyspace": cfg.Keyspace, "replication": existing.String(), "wanted": replication.String()}).
		Warn("keyspace exists with a different replication, keeping it; change it with ALTER KEYSPACE and a repair")
	return admin.CheckConsistency(existing)
}

// checkReplicas returns an error if a data center has fewer nodes than replicas: writes would wait for missing nodes.
func checkReplicas(ctx context.Context, admin *cassandra.Admin, replication cassandra.Replication) error {
	nodes, err := admin.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, dc := range slices.Sorted(maps.Keys(replication)) {
		if nodes[dc] == 0 {
			return fmt.Errorf("replication %s (CASSANDRA_REPLICATION): data center %q is not in the cluster, which has %s",
				replication, dc, strings.Join(slices.Sorted(maps.Keys(nodes)), ", "))
		}
		if nodes[dc] < replication[dc] {
			return fmt.Errorf("replication %s (CASSANDRA_REPLICATION): data center %q has %d node(s) for %d replicas; set %s=%d or add nodes",
				replication, dc, nodes[dc], replication[dc], dc, nodes[dc])
		}
	}
	return nil
}

// Check compares the keyspace with the schema and returns a message for each difference: missing tables and columns, and
// different types, keys and options. Additional columns do not count.
func Check(ctx context.Context, cfg cassandra.Config, replication cassandra.Replication, logger logrus.FieldLogger) ([]string, error) {
	admin, err := connect(ctx, cfg, "", logger)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	existing, err := admin.Replication(ctx)
	if err != nil {
		return nil, err
	}
	var differences []string
	if existing.String() != replication.String() {
		differences = append(differences, fmt.Sprintf("keyspace %s: replication is %s, not %s", cfg.Keyspace, existing, replication))
	}
	columns, err := CheckColumns(ctx, admin)
	if err != nil {
		return nil, err
	}
	options, err := admin.TableOptions(ctx)
	if err != nil {
		return nil, err
	}
	_, messages := compareOptions(Tables(), options)
	return slices.Concat(differences, columns, messages), nil
}

// CheckColumns returns a message for each table or column of the schema that is missing or differs.
func CheckColumns(ctx context.Context, admin *cassandra.Admin) ([]string, error) {
	columns, err := admin.Columns(ctx)
	if err != nil {
		return nil, err
	}
	_, messages := compareColumns(Tables(), columns)
	return messages, nil
}

// Drop drops the keyspace with all its data, for benchmarks and tests.
func Drop(ctx context.Context, cfg cassandra.Config, logger logrus.FieldLogger) error {
	keyspace := cfg.Keyspace
	cfg.Keyspace = "" // the session does not need it
	return Exec(ctx, cfg, logger, "DROP KEYSPACE IF EXISTS "+keyspace)
}

// Truncate empties every table of the keyspace, for benchmarks and tests.
func Truncate(ctx context.Context, cfg cassandra.Config, logger logrus.FieldLogger) error {
	var statements []string
	for table := range Tables() {
		statements = append(statements, "TRUNCATE "+table)
	}
	return Exec(ctx, cfg, logger, statements...)
}

// Exec runs statements in the keyspace in order, for tests. The nodes agree on the schema after each.
func Exec(ctx context.Context, cfg cassandra.Config, logger logrus.FieldLogger, statements ...string) error {
	admin, err := connect(ctx, cfg, cfg.Keyspace, logger)
	if err != nil {
		return err
	}
	defer admin.Close()
	for _, statement := range statements { // each is executed on a schema that all nodes agree on
		if err := admin.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// render returns the statements of the numbered files in order, without comments.
func render(keyspace string, replication cassandra.Replication) ([]string, error) {
	templates, err := template.ParseFS(files, "*.cql")
	if err != nil {
		return nil, err
	}
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var statements []string
	for _, entry := range entries { // sorted by name, so by number
		var b strings.Builder
		values := map[string]string{"Keyspace": keyspace, "Replication": replication.CQL()}
		if err := templates.ExecuteTemplate(&b, entry.Name(), values); err != nil {
			return nil, err
		}
		for _, s := range strings.Split(comment.ReplaceAllString(b.String(), ""), ";") {
			if s = strings.TrimSpace(s); s != "" {
				statements = append(statements, s)
			}
		}
	}
	return statements, nil
}

var comment = regexp.MustCompile(`(?m)--.*$`)
