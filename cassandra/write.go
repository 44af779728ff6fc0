package cassandra

import (
	"context"
	"hash/fnv"

	"github.com/gocql/gocql"
)

// exec runs one write whose values the driver encodes: for rows that are few.
func (s *Session) exec(ctx context.Context, table, statement string, args ...any) error {
	return opError("write "+table, s.writing(ctx, statement, args...).Exec())
}

// writing prepares a write.
func (s *Session) writing(ctx context.Context, statement string, args ...any) *gocql.Query {
	return s.driver.Query(statement, args...).WithContext(ctx).Consistency(s.write).Idempotent(true)
}

// batch is one write to one partition: a single statement, or an unlogged batch.
type batch struct {
	session *Session
	ctx     context.Context
	entries []gocql.BatchEntry
}

// batch starts a write of about n statements.
func (s *Session) batch(ctx context.Context, n int) *batch {
	return &batch{session: s, ctx: ctx, entries: make([]gocql.BatchEntry, 0, n)}
}

func (b *batch) add(statement string, args []any) {
	b.entries = append(b.entries, gocql.BatchEntry{Stmt: statement, Args: args, Idempotent: true})
}

func (b *batch) exec(table string) error {
	s := b.session
	var err error
	switch len(b.entries) {
	case 0:
		return nil
	case 1: // cheaper for the node than a batch of one
		err = s.writing(b.ctx, b.entries[0].Stmt, b.entries[0].Args...).Exec()
	default:
		unlogged := s.driver.NewBatch(gocql.UnloggedBatch).WithContext(b.ctx)
		unlogged.Cons = s.write
		unlogged.Entries = b.entries
		err = s.driver.ExecuteBatch(unlogged)
	}
	return opError("write "+table, err)
}

// bucketOf spreads names evenly over n partitions.
func bucketOf(name string, n uint32) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return int32(h.Sum32() % n)
}

// buckets lists the numbers of n partitions.
func buckets(n int32) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(i)
	}
	return list
}

// Mutation is a row to write or to delete at a write timestamp in µs. The later of two mutations of a row wins. The Apply
// methods take rows of one partition and send them as one mutation; callers bound their number.
type Mutation[R any] struct {
	Row         R // of a deletion only the key counts
	Delete      bool
	WriteTimeUs int64
}

// Put returns mutations that write rows at a write timestamp in µs.
func Put[R any](writeTimeUs int64, rows ...R) (all []Mutation[R]) {
	for _, row := range rows {
		all = append(all, Mutation[R]{Row: row, WriteTimeUs: writeTimeUs})
	}
	return all
}

// Remove returns mutations that delete rows at a write timestamp in µs.
func Remove[R any](writeTimeUs int64, rows ...R) []Mutation[R] {
	all := Put(writeTimeUs, rows...)
	for i := range all {
		all[i].Delete = true
	}
	return all
}

// insert sends rows of one partition by one statement each. fields adds the values of a row.
func insert[R any](ctx context.Context, s *Session, table, statement string, width int, rows []R, fields func(*arena, *R)) error {
	a := newArena(len(rows), width)
	b := s.batch(ctx, len(rows))
	for i := range rows {
		from := len(a.args)
		fields(a, &rows[i])
		b.add(statement, a.row(from))
	}
	return b.exec(table)
}

// apply builds a statement per row. A deletion begins with the write timestamp, an insertion ends with it.
func apply[R any](ctx context.Context, db *Session, table string, width int, rows []Mutation[R], insert, remove string, key, cells func(*arena, *R)) error {
	a := newArena(len(rows), width)
	b := db.batch(ctx, len(rows))
	for i := range rows {
		from, statement := len(a.args), insert
		if rows[i].Delete {
			statement = remove
			a.add(&rows[i].WriteTimeUs)
		}
		key(a, &rows[i].Row)
		if !rows[i].Delete {
			cells(a, &rows[i].Row)
			a.add(&rows[i].WriteTimeUs)
		}
		b.add(statement, a.row(from))
	}
	return b.exec(table)
}
