package cassandra

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

func TestReadStats(t *testing.T) {
	statsOf(t.Context()).addStatement("ignored without stats", nil)
	ctx, stats := WithReadStats(t.Context())
	day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	statsOf(ctx).addStatement("SELECT a FROM t WHERE d = ? AND day = ? AND ts >= ? LIMIT ?", []any{"it's", day, day.Add(time.Second), 7})
	statsOf(context.WithoutCancel(ctx)).addAnswer(gocql.ObservedQuery{Rows: 7})
	statsOf(ctx).addAnswer(gocql.ObservedQuery{Attempt: 1, Err: errors.New("down")})
	for range statementsKept {
		statsOf(ctx).addStatement("SELECT b", nil)
	}
	got := stats.Totals()
	require.Equal(t, "SELECT a FROM t WHERE d = 'it''s' AND day = '2026-11-24' AND ts >= '2026-11-24T00:00:01.000Z' LIMIT 7", got.Statements[0])
	require.Len(t, got.Statements, statementsKept)
	require.Equal(t, 1, got.More)
	require.Equal(t, statementsKept+1, got.Partitions)
	require.Equal(t, 1, got.Pages)
	require.Equal(t, 7, got.Rows)
	require.Equal(t, 1, got.Retries)
}

func TestLiterals(t *testing.T) {
	for want, v := range map[string]any{"'2026-11-24'": DayOf(1795478400000), "2.5": 2.5, "true": true} {
		require.Equal(t, want, literal(v))
	}
}
