package cassandra

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/gocql/gocql"
)

// option is a table option: its CQL text and the values in it. A number has a single value, named "".
type option struct {
	text   string
	values map[string]string
}

// tableOptions are the options that can change on a table with rows, and their form in CQL.
var tableOptions = map[string]*regexp.Regexp{
	"gc_grace_seconds": regexp.MustCompile(`\bgc_grace_seconds = (\d+)`),
	"compaction":       regexp.MustCompile(`\bcompaction = (\{[^}]*\})`),
}

var mapEntry = regexp.MustCompile(`'(\w+)': '?([\w.]+)'?`)

// expectedOptions reads the options from the schema files, by table and option.
func expectedOptions(keyspace string, replication Replication) (map[string]map[string]option, error) {
	statements, err := schemaStatements(keyspace, replication)
	if err != nil {
		return nil, err
	}
	want := map[string]map[string]option{}
	for _, statement := range statements {
		m := createTable.FindStringSubmatch(statement)
		if m == nil {
			continue
		}
		want[m[1]] = map[string]option{}
		for name, form := range tableOptions {
			found := form.FindStringSubmatch(m[3])
			if found == nil {
				continue
			}
			o := option{text: found[1], values: map[string]string{}}
			for _, entry := range mapEntry.FindAllStringSubmatch(found[1], -1) {
				o.values[entry[1]] = entry[2]
			}
			if len(o.values) == 0 {
				o.values[""] = found[1]
			}
			want[m[1]][name] = o
		}
	}
	return want, nil
}

// optionsOf reads the options of the tables of a keyspace.
func optionsOf(ctx context.Context, session *gocql.Session, keyspace string) (map[string]map[string]map[string]string, error) {
	iter := session.Query("SELECT table_name, gc_grace_seconds, compaction FROM system_schema.tables WHERE keyspace_name = ?", keyspace).
		WithContext(ctx).Consistency(gocql.One).Iter()
	have := map[string]map[string]map[string]string{}
	var table string
	var grace int
	for {
		var compaction map[string]string
		if !iter.Scan(&table, &grace, &compaction) {
			return have, opError("read tables of keyspace "+keyspace, iter.Close())
		}
		have[table] = map[string]map[string]string{"gc_grace_seconds": {"": fmt.Sprint(grace)}, "compaction": compaction}
	}
}

// differentOptions returns the statements that set differing options to the values of the schema, and a message for each.
func differentOptions(ctx context.Context, session *gocql.Session, keyspace string, replication Replication) (changes, lines []string, err error) {
	want, err := expectedOptions(keyspace, replication)
	if err != nil {
		return nil, nil, err
	}
	have, err := optionsOf(ctx, session, keyspace)
	if err != nil {
		return nil, nil, err
	}
	for _, table := range slices.Sorted(maps.Keys(want)) {
		if have[table] == nil {
			continue // the whole table is missing
		}
		for _, name := range slices.Sorted(maps.Keys(want[table])) {
			o, got := want[table][name], have[table][name]
			for _, key := range slices.Sorted(maps.Keys(o.values)) {
				// Cassandra stores the full names of classes.
				if value := got[key]; value != o.values[key] && !strings.HasSuffix(value, "."+o.values[key]) {
					changes = append(changes, fmt.Sprintf("ALTER TABLE %s WITH %s = %s", table, name, o.text))
					lines = append(lines, fmt.Sprintf("table %s: %s is %q, not %q; set it with: fleet-etl schema apply", table, strings.TrimSpace(name+" "+key), value, o.values[key]))
					break
				}
			}
		}
	}
	return changes, lines, nil
}
