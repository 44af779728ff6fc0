package cassandra

import (
	"context"

	"github.com/gocql/gocql"
)

// What the tests with a cluster, which are outside the package because the schema imports it, need of the inside.
const (
	MsPerDay      = msPerDay
	SelectHistory = selectHistory
	Unprepared    = unprepared
)

// Driver is the driver's session.
func (s *Session) Driver() *gocql.Session { return s.driver }

// WriteInvalid writes with a statement that does not fit the schema.
func (s *Session) WriteInvalid(ctx context.Context) error {
	b := s.batch(ctx, 1)
	b.add("INSERT INTO fleets (shard, color) VALUES (?, ?)", []any{int32(0), "red"})
	return b.exec(TableFleets)
}
