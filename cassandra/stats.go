package cassandra

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gocql/gocql"
)

// ReadStats measures the reads that run with the context of WithReadStats. It is safe for concurrent use.
type ReadStats struct {
	mu     sync.Mutex
	totals ReadTotals
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

// statementsKept is the number of statements whose text is kept. The others are only counted.
const statementsKept = 10

type statsKey struct{}

// WithReadStats returns a context whose reads are measured.
func WithReadStats(ctx context.Context) (context.Context, *ReadStats) {
	stats := &ReadStats{totals: ReadTotals{Coordinators: map[string]int{}}}
	return context.WithValue(ctx, statsKey{}, stats), stats
}

func statsOf(ctx context.Context) *ReadStats {
	stats, _ := ctx.Value(statsKey{}).(*ReadStats)
	return stats
}

// Totals returns a snapshot.
func (s *ReadStats) Totals() ReadTotals {
	s.mu.Lock()
	defer s.mu.Unlock()
	totals := s.totals
	totals.Coordinators, totals.Statements = maps.Clone(totals.Coordinators), slices.Clone(totals.Statements)
	return totals
}

func (s *ReadStats) addStatement(statement string, args []any) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals.Partitions++
	if len(s.totals.Statements) < statementsKept {
		s.totals.Statements = append(s.totals.Statements, withValues(statement, args))
		return
	}
	s.totals.More++
}

func (s *ReadStats) addAnswer(q gocql.ObservedQuery) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Attempt > 0 {
		s.totals.Retries++
	}
	if q.Err != nil {
		return
	}
	s.totals.Pages++
	s.totals.Rows += q.Rows
	if q.Host != nil {
		s.totals.Coordinators[fmt.Sprintf("%s (%s)", q.Host.ConnectAddress(), q.Host.DataCenter())]++
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
		return fmt.Sprint(v)
	}
}
