package cassandra

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/gocql/gocql"

	"github.com/fleettracing/fleet-tracing/cassandra/internal/cqlvalue"
)

// Table is a table of the schema.
type Table struct {
	Name          string        `json:"name"`
	PartitionKey  []string      `json:"partitionKey"`
	ClusteringKey []string      `json:"clusteringKey"`
	Columns       []TableColumn `json:"columns"` // keys first, then by name
}

// TableColumn is a column and its CQL type.
type TableColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// QueryStore runs SELECT statements that people write, and describes the tables that they can read.
type QueryStore struct{ *Session }

// Schema lists the tables of the keyspace, sorted by name.
func (s *QueryStore) Schema(ctx context.Context) ([]Table, error) {
	found, err := (&Admin{s.config, s.driver}).Columns(ctx)
	if err != nil {
		return nil, err
	}
	tables := make([]Table, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		table := Table{Name: name, PartitionKey: keyColumns(found[name], "partition key "), ClusteringKey: keyColumns(found[name], "clustering key ")}
		keys := slices.Concat(table.PartitionKey, table.ClusteringKey)
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(found[name])), func(c string) bool { return slices.Contains(keys, c) })
		for _, c := range append(keys, names...) {
			table.Columns = append(table.Columns, TableColumn{Name: c, Type: found[name][c].Type})
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// keyColumns lists the columns of a kind by their position.
func keyColumns(columns map[string]Column, kind string) []string {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(columns)), func(c string) bool { return !strings.HasPrefix(columns[c].Kind, kind) })
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(columns[a].Kind, columns[b].Kind) })
	return names
}

// unprepared precedes statements that must not be prepared. Statements of dashboards contain their values, so that nearly
// every one differs: preparing it would cost a round trip, a row in a system table, and a place in two caches. The driver
// prepares every statement that begins with a verb. The comment has a line of its own to keep the columns that syntax
// errors name.
const unprepared = "/**/\n"

// noValues keeps the driver from preparing a statement to find the values of its partition key.
func noValues(*gocql.QueryInfo) ([]any, error) { return nil, nil }

// Result holds the rows of a statement. A value is nil, bool, int64, float64, time.Time, string, *big.Int (varint) or
// *inf.Dec (decimal). Collections, tuples and user types are JSON texts.
type Result struct {
	Columns []ResultColumn
	Rows    [][]any
	More    bool // there are rows beyond the limit
	Full    bool // there are rows for which the memory of the reader did not suffice
	Bytes   int  // approximate memory of the rows, and of a frame that is made of them
}

// ResultColumn is a column of a result.
type ResultColumn struct {
	Name string
	Type string // CQL type, for example timestamp or list<int>
}

// pageBytes bounds a page of a statement, together with the length of the statement: each row may repeat columns and texts as
// often as the statement has room to name them.
const pageBytes = 2 << 20

// Select runs a SELECT statement unchanged and reads at most limit rows. The caller decides which statements are allowed;
// Select only bounds rows, memory and time. If the memory of WithMemory does not suffice, it returns the rows before that
// with the error.
func (s *QueryStore) Select(ctx context.Context, statement string, limit int) (Result, error) {
	const op = "run statement"
	leave, err := s.enter(ctx)
	if err != nil {
		return Result{}, opError(op, err)
	}
	defer leave()
	statsOf(ctx).addStatement(statement, nil)
	iter := s.reading(s.driver.Bind(unprepared+statement, noValues).WithContext(ctx)).PageSize(min(limit+1, 5000, max(pageBytes/len(statement), 1))).Iter()
	take := MemoryOf(ctx)
	var result Result
	var dest []any
	var values []func() any // of the columns
	for _, c := range iter.Columns() {
		result.Columns = append(result.Columns, ResultColumn{Name: c.Name, Type: cqlvalue.TypeName(c.TypeInfo)})
		cells, value := cqlvalue.Column(c.TypeInfo)
		dest, values = append(dest, cells...), append(values, value)
	}
	for len(dest) > 0 && iter.Scan(dest...) {
		if len(result.Rows) == limit {
			result.More = true
			break
		}
		row := make([]any, len(values))
		for i, value := range values {
			row[i] = value()
		}
		bytes := resultBytes(row)
		if err := take(bytes); err != nil {
			return result, opError(op, errors.Join(err, iter.Close()))
		}
		result.Rows, result.Bytes = append(result.Rows, row), result.Bytes+bytes
	}
	return result, opError(op, iter.Close())
}
