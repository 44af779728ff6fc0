package cassandra

import (
	"context"
	"maps"
	"slices"
	"strconv"
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
type QueryStore struct{ db *Session }

// Schema lists the tables of the keyspace, sorted by name.
func (s *QueryStore) Schema(ctx context.Context) ([]Table, error) {
	found, err := columnsOf(ctx, s.db.driver, s.db.config.Keyspace)
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
	keys := map[int]string{}
	for name, c := range columns {
		if place, ok := strings.CutPrefix(c.Kind, kind); ok {
			position, _, _ := strings.Cut(place, " ")
			n, _ := strconv.Atoi(position)
			keys[n] = name
		}
	}
	names := make([]string, 0, len(keys))
	for _, n := range slices.Sorted(maps.Keys(keys)) {
		names = append(names, keys[n])
	}
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
}

// ResultColumn is a column of a result.
type ResultColumn struct {
	Name string
	Type string // CQL type, for example timestamp or list<int>
}

// Select runs a SELECT statement unchanged and reads at most limit rows. The caller decides which statements are allowed;
// Select only bounds rows and time.
func (s *QueryStore) Select(ctx context.Context, statement string, limit int) (Result, error) {
	const op = "run statement"
	leave, err := s.db.enter(ctx)
	if err != nil {
		return Result{}, opError(op, err)
	}
	defer leave()
	statsOf(ctx).addStatement(statement, nil)
	q := s.db.driver.Bind(unprepared+statement, noValues).WithContext(ctx).Consistency(s.db.read).Idempotent(true).PageSize(min(limit+1, 5000))
	if s.db.config.ReadRetries > 0 {
		q.RetryPolicy(readRetries(s.db.config.ReadRetries))
	}
	iter := q.Iter()
	var result Result
	var cells []*cqlvalue.Cell
	var dest []any
	var tuples []int // number of elements if the column is a tuple, else 0
	for _, c := range iter.Columns() {
		result.Columns = append(result.Columns, ResultColumn{Name: c.Name, Type: cqlvalue.TypeName(c.TypeInfo)})
		parts := 1
		if tuple, ok := c.TypeInfo.(gocql.TupleTypeInfo); ok { // the driver scans the elements of a tuple one by one
			parts = len(tuple.Elems)
			tuples = append(tuples, parts)
		} else {
			tuples = append(tuples, 0)
		}
		for range parts {
			cell := &cqlvalue.Cell{}
			cells = append(cells, cell)
			dest = append(dest, cell)
		}
	}
	for len(dest) > 0 && iter.Scan(dest...) {
		if len(result.Rows) == limit {
			result.More = true
			break
		}
		row := make([]any, 0, len(result.Columns))
		next := 0
		for _, parts := range tuples {
			if parts == 0 {
				row = append(row, cells[next].Value)
				next++
				continue
			}
			row = append(row, cqlvalue.Tuple(cells[next:next+parts]))
			next += parts
		}
		result.Rows = append(result.Rows, row)
	}
	return result, opError(op, iter.Close())
}
