package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"
)

// query prepares a read of one partition.
func (s *Session) query(ctx context.Context, statement string, args ...any) *gocql.Query {
	statsOf(ctx).addStatement(statement, args)
	return s.reading(s.driver.Query(statement, args...).WithContext(ctx))
}

// reading sets the consistency level and the retries of a read.
func (s *Session) reading(q *gocql.Query) *gocql.Query {
	q = q.Consistency(s.read).Idempotent(true)
	if s.config.ReadRetries > 0 {
		q.RetryPolicy(readRetries(s.config.ReadRetries))
	}
	return q
}

// readRetries is how often a failed read is sent to another node, if that can help.
type readRetries int

// Attempt implements gocql.RetryPolicy.
func (n readRetries) Attempt(q gocql.RetryableQuery) bool {
	return q.Attempts() <= int(n) && q.Context().Err() == nil
}

// GetRetryType implements gocql.RetryPolicy. Unavailable is the view of one coordinator: another may see more replicas.
func (n readRetries) GetRetryType(err error) gocql.RetryType {
	if classify(err).Advice() == GiveUp {
		return gocql.Rethrow
	}
	return gocql.RetryNextHost
}

// enter waits for a slot among the partitions that may be read at once, and returns the function that frees it.
func (s *Session) enter(ctx context.Context) (func(), error) {
	if s.reads == nil {
		return func() {}, nil
	}
	select {
	case s.reads <- struct{}{}:
		return func() { <-s.reads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// collect reads all rows of a query, page by page. columns returns where the columns of a row go.
func collect[T any](s *Session, q *gocql.Query, columns func(*T) []any) ([]T, error) {
	return scan(s, q, func(iter *gocql.Iter) (row T, ok bool) {
		ok = iter.Scan(columns(&row)...)
		return row, ok
	})
}

// one is for collect, where rows have a single column.
func one[T any](value *T) []any { return []any{value} }

// scan is collect with a function that reads a row.
func scan[T any](s *Session, q *gocql.Query, next func(*gocql.Iter) (T, bool)) ([]T, error) {
	leave, err := s.enter(q.Context())
	if err != nil {
		return nil, err
	}
	defer leave()
	take := MemoryOf(q.Context())
	iter := q.Iter()
	rows := make([]T, 0, iter.NumRows())
	for {
		row, ok := next(iter)
		if !ok {
			return rows, iter.Close()
		}
		if err := take(rowBytes(&row)); err != nil {
			return nil, errors.Join(err, iter.Close())
		}
		rows = append(rows, row)
	}
}

// fanOut reads every part, at most n in parallel, and returns the results in the order of the parts. The first error
// cancels the rest.
func fanOut[P, T any](ctx context.Context, n int, parts []P, read func(context.Context, P) (T, error)) ([]T, error) {
	results := make([]T, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for i, part := range parts {
		g.Go(func() (err error) {
			results[i], err = read(ctx, part)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

// Page is a part of a list and the position of the next part.
type Page[T any] struct {
	Rows []T
	Next string // passed to read the next page; empty at the end
}

// MaxDays is the longest range of alerts and hourly statistics, in days. These rows never expire.
const MaxDays = 400

func checkRange(first, last Day) error {
	if last-first >= MaxDays {
		return fmt.Errorf("range %s to %s: %d days, at most %d can be read at once; choose a shorter range", first, last, last-first+1, MaxDays)
	}
	return nil
}

// wave is the number of days to read at once, at most n: the newest day alone, then as many as are likely to fill the limit,
// judging by the days and rows read so far. Each day is read up to the limit, so reading all at once would read far too much.
func wave(n, limit, rows, days int) int {
	switch {
	case days == 0:
		return 1
	case rows == 0:
		return min(2*days, n)
	}
	return min(max((limit-rows)*days/rows, 1), n)
}

// newestFirst reads the days of a range in Unix milliseconds, the newest first, at most n in parallel. With a limit, it
// reads only as many days as it needs, and returns at least so many rows if there are.
func newestFirst[T any](ctx context.Context, n int, fromMs, toMs int64, limit int, read func(context.Context, Day) ([]T, error)) ([]T, error) {
	var rows []T
	var days []Day
	for day := DayOf(toMs); fromMs <= toMs && day >= DayOf(fromMs); day-- {
		days = append(days, day)
	}
	for done := 0; done < len(days) && (limit <= 0 || len(rows) < limit); {
		next := days[done:]
		if limit > 0 {
			next = next[:min(len(next), wave(n, limit, len(rows), done))]
		}
		done += len(next)
		parts, err := fanOut(ctx, n, next, read)
		if err != nil {
			return nil, err
		}
		rows = append(rows, slices.Concat(parts...)...)
	}
	return rows, nil
}

// byMonth reads the months of a range, each newest first, and returns all rows oldest first.
func byMonth[T any](ctx context.Context, s *Session, fromMs, toMs int64, read func(context.Context, Day) ([]T, error)) ([]T, error) {
	var months []Day
	for m := DayOf(fromMs).Month(); m <= DayOf(toMs); m = m.NextMonth() {
		months = append(months, m)
	}
	slices.Reverse(months)
	parts, err := fanOut(ctx, s.config.Fanout, months, read)
	rows := slices.Concat(parts...)
	slices.Reverse(rows)
	return rows, err
}
