package schema

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Table is a table as the schema files define it.
type Table struct {
	Columns map[string]cassandra.Column
	options map[string]option
}

// option is the value of a table option, and the CQL text that sets it.
type option struct{ value, text string }

// Tables returns the tables of the schema files, the only place that defines them.
func Tables() map[string]Table {
	statements, err := render("keyspace", nil)
	if err != nil {
		panic(err) // the embedded files do not parse; a test renders them
	}
	return parse(statements)
}

var (
	createTable = regexp.MustCompile(`(?s)^CREATE TABLE IF NOT EXISTS (\w+) \((.*?)\n\)(.*)$`)
	primaryKey  = regexp.MustCompile(`PRIMARY KEY \((?:\(([^)]*)\)|(\w+))((?:, *\w+)*)\)`)
	columnLine  = regexp.MustCompile(`(?m)^\s*(\w+)\s+([a-z<>]+),$`)
	descending  = regexp.MustCompile(`(\w+) DESC`)

	// The options that can change on a table with rows.
	graceOption      = regexp.MustCompile(`\bgc_grace_seconds = (\d+)`)
	compactionOption = regexp.MustCompile(`\bcompaction = \{[^}]*\}`)
	mapEntry         = regexp.MustCompile(`'(\w+)': '?([\w.]+)'?`)
)

func parse(statements []string) map[string]Table {
	tables := map[string]Table{}
	for _, statement := range statements {
		if m := createTable.FindStringSubmatch(statement); m != nil {
			tables[m[1]] = Table{parseColumns(m[2], m[3]), parseOptions(m[3])}
		}
	}
	return tables
}

func parseColumns(body, options string) map[string]cassandra.Column {
	columns := map[string]cassandra.Column{}
	for _, m := range columnLine.FindAllStringSubmatch(body, -1) {
		columns[m[1]] = cassandra.Column{Type: m[2], Kind: "regular"}
	}
	desc := map[string]bool{}
	for _, m := range descending.FindAllStringSubmatch(options, -1) {
		desc[m[1]] = true
	}
	key := primaryKey.FindStringSubmatch(body)
	for i, name := range splitNames(key[1] + key[2]) {
		columns[name] = cassandra.Column{Type: columns[name].Type, Kind: cassandra.ColumnKind("partition_key", i, "none")}
	}
	for i, name := range splitNames(key[3]) {
		order := "asc"
		if desc[name] {
			order = "desc"
		}
		columns[name] = cassandra.Column{Type: columns[name].Type, Kind: cassandra.ColumnKind("clustering", i, order)}
	}
	return columns
}

func splitNames(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func parseOptions(text string) map[string]option {
	options := map[string]option{}
	if m := graceOption.FindStringSubmatch(text); m != nil {
		options["gc_grace_seconds"] = option{m[1], m[0]}
	}
	compaction := compactionOption.FindString(text)
	for _, entry := range mapEntry.FindAllStringSubmatch(compaction, -1) {
		options["compaction "+entry[1]] = option{entry[2], compaction}
	}
	return options
}

// compareColumns returns the statements that add columns which existing tables lack, and a message for each difference.
// Keys cannot be added.
func compareColumns(want map[string]Table, have map[string]map[string]cassandra.Column) (changes, messages []string) {
	for _, table := range slices.Sorted(maps.Keys(want)) {
		if have[table] == nil {
			messages = append(messages, fmt.Sprintf("table %s: missing; create it with: fleet-etl schema apply", table))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(want[table].Columns)) {
			expected, got := want[table].Columns[name], have[table][name]
			var is string
			switch {
			case got == cassandra.Column{}:
				add := fmt.Sprintf("ALTER TABLE %s ADD %s %s", table, name, expected.Type)
				if is = "missing; add it with: " + add; expected.Kind == "regular" {
					changes = append(changes, add)
				}
			case got.Type != expected.Type:
				is = got.Type + ", not " + expected.Type
			case got.Kind != expected.Kind:
				is = got.Kind + ", not " + expected.Kind
			default:
				continue
			}
			messages = append(messages, fmt.Sprintf("table %s: column %s is %s", table, name, is))
		}
	}
	return changes, messages
}

// compareOptions returns the statements that set differing options to the values of the schema, and a message for each.
func compareOptions(want map[string]Table, have map[string]map[string]string) (changes, messages []string) {
	for _, table := range slices.Sorted(maps.Keys(want)) {
		if have[table] == nil {
			continue // the whole table is missing
		}
		for _, name := range slices.Sorted(maps.Keys(want[table].options)) {
			o, value := want[table].options[name], have[table][name]
			// Cassandra stores the full names of classes.
			if value != o.value && !strings.HasSuffix(value, "."+o.value) {
				changes = append(changes, fmt.Sprintf("ALTER TABLE %s WITH %s", table, o.text))
				messages = append(messages, fmt.Sprintf("table %s: %s is %q, not %q; set it with: fleet-etl schema apply", table, name, value, o.value))
			}
		}
	}
	return slices.Compact(changes), messages
}
