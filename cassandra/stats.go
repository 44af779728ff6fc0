package cassandra

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"
)

// ReadStats measures the reads that run with the context of WithReadStats. It is safe for concurrent use.
type ReadStats struct {
	mu           sync.Mutex
	partitions   int
	pages, rows  int
	retries      int
	coordinators map[string]int
	statements   []string
	more         int
}

// statementsKept is the number of statements whose text is kept. The others are only counted.
const statementsKept = 10

type statsKey struct{}

// WithReadStats returns a context whose reads are measured.
func WithReadStats(ctx context.Context) (context.Context, *ReadStats) {
	stats := &ReadStats{coordinators: map[string]int{}}
	return context.WithValue(ctx, statsKey{}, stats), stats
}

func statsOf(ctx context.Context) *ReadStats {
	stats, _ := ctx.Value(statsKey{}).(*ReadStats)
	return stats
}

// ReadTotals is a snapshot of ReadStats.
type ReadTotals struct {
	Partitions   int            // partitions read
	Pages        int            // successful responses of nodes
	Rows         int            // rows in the responses
	Retries      int            // requests repeated after a failure
	Coordinators map[string]int // responses by node, as "address (data center)"
	Statements   []string       // first statements, with their values
	More         int            // number of further statements
}

// Totals returns a snapshot.
func (s *ReadStats) Totals() ReadTotals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ReadTotals{
		Partitions: s.partitions, Pages: s.pages, Rows: s.rows, Retries: s.retries,
		Coordinators: maps.Clone(s.coordinators), Statements: slices.Clone(s.statements), More: s.more,
	}
}

func (s *ReadStats) addStatement(statement string, args []any) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions++
	if len(s.statements) < statementsKept {
		s.statements = append(s.statements, withValues(statement, args))
		return
	}
	s.more++
}

func (s *ReadStats) addAnswer(q gocql.ObservedQuery) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Attempt > 0 {
		s.retries++
	}
	if q.Err != nil {
		return
	}
	s.pages++
	s.rows += q.Rows
	if q.Host != nil {
		s.coordinators[fmt.Sprintf("%s (%s)", q.Host.ConnectAddress(), q.Host.DataCenter())]++
	}
}

// withValues returns a statement with its values in place of the question marks, for display.
func withValues(statement string, args []any) string {
	var b strings.Builder
	for i, part := range strings.Split(statement, "?") {
		if i > 0 && i <= len(args) {
			b.WriteString(literal(args[i-1]))
		}
		b.WriteString(part)
	}
	return b.String()
}

func literal(v any) string {
	switch v := v.(type) {
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case Day:
		return "'" + v.String() + "'"
	case time.Time:
		if v.Equal(v.Truncate(24 * time.Hour)) {
			return "'" + v.UTC().Format(time.DateOnly) + "'"
		}
		return "'" + v.UTC().Format("2006-01-02T15:04:05.000Z") + "'"
	default:
		if rv := reflect.ValueOf(v); rv.IsValid() && rv.Kind() == reflect.Pointer && !rv.IsNil() {
			return literal(rv.Elem().Interface())
		}
		return fmt.Sprint(v)
	}
}
