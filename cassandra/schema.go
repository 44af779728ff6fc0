package cassandra

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

	"github.com/gocql/gocql"
	"github.com/sirupsen/logrus"
)

//go:embed schema/*.cql
var schemaFiles embed.FS

var validKeyspace = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// schemaStatements returns the statements of the numbered files in order, without comments.
func schemaStatements(keyspace string, replication Replication) ([]string, error) {
	names, err := schemaFiles.ReadDir("schema")
	if err != nil {
		return nil, err
	}
	var statements []string
	for _, name := range names { // sorted by name, so by number
		text, err := schemaFiles.ReadFile("schema/" + name.Name())
		if err != nil {
			return nil, err
		}
		t, err := template.New(name.Name()).Parse(string(text))
		if err != nil {
			return nil, err
		}
		var b strings.Builder
		if err := t.Execute(&b, map[string]string{"Keyspace": keyspace, "Replication": replication.cql()}); err != nil {
			return nil, err
		}
		statements = append(statements, splitStatements(b.String())...)
	}
	return statements, nil
}

var comment = regexp.MustCompile(`(?m)--.*$`)

func splitStatements(text string) []string {
	var statements []string
	for _, s := range strings.Split(comment.ReplaceAllString(text, ""), ";") {
		if s = strings.TrimSpace(s); s != "" {
			statements = append(statements, s)
		}
	}
	return statements
}

// schemaTimeout is the timeout of a schema change, for which nodes wait for each other and for their disks.
const schemaTimeout = time.Minute

// ApplySchema creates a missing keyspace with the given replication, and missing tables and columns. It resets table
// options that differ from the schema, and changes nothing else that exists. It can be repeated at any time. It returns
// an error if the nodes cannot hold the replication, or the replication cannot serve the consistency levels.
func ApplySchema(ctx context.Context, cfg Config, replication Replication, logger logrus.FieldLogger) error {
	cfg = cfg.withDefaults()
	cfg.Timeout = max(cfg.Timeout, schemaTimeout)
	if !validKeyspace.MatchString(cfg.Keyspace) {
		return fmt.Errorf("keyspace %q (CASSANDRA_KEYSPACE): use 1 to 48 characters of a-z0-9_, a letter first", cfg.Keyspace)
	}
	o := newObserver(nil)
	system, err := connect(ctx, cfg, "", o, logger)
	if err != nil {
		return err
	}
	defer system.Close()
	if err := checkLocalDC(ctx, system, cfg); err != nil {
		return err
	}
	if err := checkReplicas(ctx, system, replication); err != nil {
		return err
	}
	if _, err := chooseLevels(cfg, replication); err != nil {
		return err
	}
	statements, err := schemaStatements(cfg.Keyspace, replication)
	if err != nil {
		return err
	}
	if err := execSchema(ctx, system, statements[:1]); err != nil {
		return err
	}
	existing, err := replicationOf(ctx, system, cfg)
	if err != nil {
		return err
	}
	if existing.String() != replication.String() {
		logger.WithFields(logrus.Fields{"keyspace": cfg.Keyspace, "replication": existing.String(), "wanted": replication.String()}).
			Warn("keyspace exists with a different replication, keeping it; change it with ALTER KEYSPACE and a repair")
		if _, err := chooseLevels(cfg, existing); err != nil {
			return err
		}
	}
	// A single node makes all changes and sees each before the next. So it is enough to wait for schema agreement before
	// the first change and after the last, not for a second or two after every statement. The same node must report the
	// agreement: another may not know about the changes yet.
	cfg, agreed, err := answering(ctx, cfg, o, logger)
	if err != nil {
		return err
	}
	defer agreed.Close()
	if err := agreed.AwaitSchemaAgreement(ctx); err != nil {
		logger.WithError(err).Warn("nodes disagree on the schema before it is applied; check whether one is down")
	}
	cfg.hasty = true
	one, err := connect(ctx, cfg, cfg.Keyspace, o, logger)
	if err != nil {
		return err
	}
	defer one.Close()
	if err := execSchema(ctx, one, statements[1:]); err != nil {
		return err
	}
	if err := addColumns(ctx, one, cfg.Keyspace, replication); err != nil {
		return err
	}
	changes, _, err := differentOptions(ctx, one, cfg.Keyspace, replication)
	if err != nil {
		return err
	}
	if err := execSchema(ctx, one, changes); err != nil {
		return err
	}
	return opError("wait until the nodes agree on the schema", agreed.AwaitSchemaAgreement(ctx))
}

// answering returns cfg for only the first contact point that answers, and a session with it on the keyspace.
func answering(ctx context.Context, cfg Config, o *observer, logger logrus.FieldLogger) (one Config, session *gocql.Session, err error) {
	for _, host := range cfg.Hosts {
		one = cfg
		one.Hosts, one.alone = []string{host}, true
		if session, err = connect(ctx, one, cfg.Keyspace, o, logger); err == nil {
			return one, session, nil
		}
	}
	return one, nil, err
}

// addColumns adds columns that existing tables lack.
func addColumns(ctx context.Context, session *gocql.Session, keyspace string, replication Replication) error {
	have, err := columnsOf(ctx, session, keyspace)
	if err != nil {
		return err
	}
	want, err := expectedColumns(keyspace, replication)
	if err != nil {
		return err
	}
	var statements []string
	for _, table := range slices.Sorted(maps.Keys(want)) {
		for _, name := range slices.Sorted(maps.Keys(want[table])) {
			if c := want[table][name]; have[table][name] == (column{}) && c.kind == "regular" {
				statements = append(statements, fmt.Sprintf("ALTER TABLE %s ADD %s %s", table, name, c.cqlType))
			}
		}
	}
	return execSchema(ctx, session, statements)
}

// execSchema runs statements in order. The driver waits for schema agreement after each.
func execSchema(ctx context.Context, session *gocql.Session, statements []string) error {
	for _, statement := range statements {
		head, _, _ := strings.Cut(statement, "\n")
		if err := session.Query(statement).WithContext(ctx).Exec(); err != nil {
			return opError("apply schema: "+head, err)
		}
	}
	return nil
}

// Exec runs statements on the keyspace in order, for tests.
func Exec(ctx context.Context, cfg Config, logger logrus.FieldLogger, statements ...string) error {
	cfg = cfg.withDefaults()
	session, err := connect(ctx, cfg, cfg.Keyspace, newObserver(nil), logger)
	if err != nil {
		return err
	}
	defer session.Close()
	return execSchema(ctx, session, statements)
}

// DropKeyspace drops the keyspace with all its data, for benchmarks and tests.
func DropKeyspace(ctx context.Context, cfg Config, logger logrus.FieldLogger) error {
	cfg = cfg.withDefaults()
	cfg.Timeout = max(cfg.Timeout, schemaTimeout)
	session, err := connect(ctx, cfg, "", newObserver(nil), logger)
	if err != nil {
		return err
	}
	defer session.Close()
	return execSchema(ctx, session, []string{"DROP KEYSPACE IF EXISTS " + cfg.Keyspace})
}

// checkReplicas returns an error if a data center has fewer nodes than replicas: writes would wait for missing nodes.
func checkReplicas(ctx context.Context, session *gocql.Session, replication Replication) error {
	nodes, err := nodesByDC(ctx, session)
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

// CheckSchema compares the keyspace with the schema and returns a message for each difference: missing tables and columns,
// different types, keys and options. Additional columns do not count.
func CheckSchema(ctx context.Context, cfg Config, replication Replication, logger logrus.FieldLogger) ([]string, error) {
	cfg = cfg.withDefaults()
	session, err := connect(ctx, cfg, "", newObserver(nil), logger)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	existing, err := replicationOf(ctx, session, cfg)
	if err != nil {
		return nil, err
	}
	var differences []string
	if existing.String() != replication.String() {
		differences = append(differences, fmt.Sprintf("keyspace %s: replication is %s, not %s", cfg.Keyspace, existing, replication))
	}
	have, err := columnsOf(ctx, session, cfg.Keyspace)
	if err != nil {
		return nil, err
	}
	want, err := expectedColumns(cfg.Keyspace, replication)
	if err != nil {
		return nil, err
	}
	differences = append(differences, compareColumns(want, have)...)
	_, lines, err := differentOptions(ctx, session, cfg.Keyspace, replication)
	return append(differences, lines...), err
}

// column is the type and the kind of a column: partition or clustering key with its position, or regular.
type column struct{ cqlType, kind string }

func columnsOf(ctx context.Context, session *gocql.Session, keyspace string) (map[string]map[string]column, error) {
	iter := session.Query("SELECT table_name, column_name, type, kind, position, clustering_order FROM system_schema.columns WHERE keyspace_name = ?", keyspace).
		WithContext(ctx).Consistency(gocql.One).Iter()
	have := map[string]map[string]column{}
	var table, name, cqlType, kind, order string
	var position int
	for iter.Scan(&table, &name, &cqlType, &kind, &position, &order) {
		if have[table] == nil {
			have[table] = map[string]column{}
		}
		have[table][name] = column{cqlType, describeKind(kind, position, order)}
	}
	return have, opError("read columns of keyspace "+keyspace, iter.Close())
}

func describeKind(kind string, position int, order string) string {
	switch kind {
	case "partition_key":
		return fmt.Sprintf("partition key %d", position+1)
	case "clustering":
		return fmt.Sprintf("clustering key %d %s", position+1, order)
	default:
		return kind
	}
}

// expectedColumns reads the columns from the schema files, the only place that defines them.
func expectedColumns(keyspace string, replication Replication) (map[string]map[string]column, error) {
	statements, err := schemaStatements(keyspace, replication)
	if err != nil {
		return nil, err
	}
	want := map[string]map[string]column{}
	for _, statement := range statements {
		if m := createTable.FindStringSubmatch(statement); m != nil {
			want[m[1]] = tableColumns(m[2], m[3])
		}
	}
	return want, nil
}

var (
	createTable = regexp.MustCompile(`(?s)^CREATE TABLE IF NOT EXISTS (\w+) \((.*?)\n\)(.*)$`)
	primaryKey  = regexp.MustCompile(`PRIMARY KEY \((?:\(([^)]*)\)|(\w+))((?:, *\w+)*)\)`)
	columnLine  = regexp.MustCompile(`(?m)^\s*(\w+)\s+([a-z<>]+),$`)
	descending  = regexp.MustCompile(`(\w+) DESC`)
)

func tableColumns(body, options string) map[string]column {
	columns := map[string]column{}
	for _, m := range columnLine.FindAllStringSubmatch(body, -1) {
		columns[m[1]] = column{m[2], "regular"}
	}
	desc := map[string]bool{}
	for _, m := range descending.FindAllStringSubmatch(options, -1) {
		desc[m[1]] = true
	}
	key := primaryKey.FindStringSubmatch(body)
	for i, name := range splitNames(key[1] + key[2]) {
		columns[name] = column{columns[name].cqlType, describeKind("partition_key", i, "none")}
	}
	for i, name := range splitNames(key[3]) {
		order := "asc"
		if desc[name] {
			order = "desc"
		}
		columns[name] = column{columns[name].cqlType, describeKind("clustering", i, order)}
	}
	return columns
}

func splitNames(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func compareColumns(want, have map[string]map[string]column) []string {
	var differences []string
	for _, table := range slices.Sorted(maps.Keys(want)) {
		if have[table] == nil {
			differences = append(differences, fmt.Sprintf("table %s: missing; create it with: fleet-etl schema apply", table))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(want[table])) {
			expected, got := want[table][name], have[table][name]
			switch {
			case got == column{}:
				differences = append(differences, fmt.Sprintf("table %s: column %s is missing; add it with: ALTER TABLE %s ADD %s %s", table, name, table, name, expected.cqlType))
			case got.cqlType != expected.cqlType:
				differences = append(differences, fmt.Sprintf("table %s: column %s is %s, not %s", table, name, got.cqlType, expected.cqlType))
			case got.kind != expected.kind:
				differences = append(differences, fmt.Sprintf("table %s: column %s is %s, not %s", table, name, got.kind, expected.kind))
			}
		}
	}
	return differences
}

// Truncate empties every table of the keyspace, for benchmarks and tests.
func Truncate(ctx context.Context, cfg Config, logger logrus.FieldLogger) error {
	cfg = cfg.withDefaults()
	cfg.Timeout = max(cfg.Timeout, schemaTimeout)
	session, err := connect(ctx, cfg, cfg.Keyspace, newObserver(nil), logger)
	if err != nil {
		return err
	}
	defer session.Close()
	for _, table := range tables {
		if err := session.Query("TRUNCATE " + table).WithContext(ctx).Exec(); err != nil {
			return opError("truncate "+table, err)
		}
	}
	return nil
}
