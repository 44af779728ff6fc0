package chaos

import (
	"context"
	"errors"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
)

// alterTables runs ALTER TABLE for each table of the history and the latest positions, and then the statements.
func (s *scenario) alterTables(ctx context.Context, change string, statements ...string) error {
	var all []string
	for _, table := range []string{cassandra.TableHistory, cassandra.TableLatest, cassandra.TableLatestByFleet} {
		all = append(all, "ALTER TABLE "+table+" "+change)
	}
	return schema.Exec(ctx, s.store, quiet(), append(all, statements...)...)
}

// addColumns adds columns as a later version does, and creates and drops a table.
func addColumns(ctx context.Context, s *scenario) error {
	return s.alterTables(ctx, "ADD chaos text", "CREATE TABLE chaos (id text PRIMARY KEY)", "DROP TABLE chaos")
}

func dropColumns(ctx context.Context, s *scenario) error {
	_, err := s.command(ctx, "schema", "check")
	return errors.Join(err, s.alterTables(ctx, "DROP chaos"))
}

// truncate empties the history and the latest positions. Earlier records are gone, later ones must be stored.
func truncate(ctx context.Context, s *scenario) error {
	err := schema.Exec(ctx, s.store, quiet(), "TRUNCATE "+cassandra.TableHistory, "TRUNCATE "+cassandra.TableLatest, "TRUNCATE "+cassandra.TableLatestByFleet)
	s.keptFromMs = time.Now().Add(-behind).UnixMilli()
	return err
}
