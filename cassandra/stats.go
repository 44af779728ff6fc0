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

// ReadStats tells what reads really cost: everything that is read under the context of WithReadStats. It is safe for
// concurrent use.
type ReadStats struct {
	mu           sync.Mutex
	partitions   int
	pages, rows  int
	retries      int
	coordinators map[string]int
	statements   []string
	more         int
}

// statementsKept is how many of the statements are kept as text; of the rest only the number.
const statementsKept = 10

type statsKey struct{}

// WithReadStats makes a context whose reads are counted.
func WithReadStats(ctx context.Context) (context.Context, *ReadStats) {
	stats := &ReadStats{coordinators: map[string]int{}}
	return context.WithValue(ctx, statsKey{}, stats), stats
}

func statsOf(ctx context.Context) *ReadStats {
	stats, _ := ctx.Value(statsKey{}).(*ReadStats)
	return stats
}

// ReadFigures is a copy of what ReadStats has counted.
type ReadFigures struct {
	Partitions   int            // partitions asked for
	Pages        int            // answers of nodes that brought rows, or said that there are none
	Rows         int            // rows in these answers
	Retries      int            // requests that were sent again after a failure
	Coordinators map[string]int // answers by node, as "address (data centre)"
	Statements   []string       // the first statements, with their values
	More         int            // statements that were run beside these
}

// Figures is what has been counted so far.
func (s *ReadStats) Figures() ReadFigures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ReadFigures{
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

// withValues writes the values of a statement in the place of its marks, for people to read.
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
