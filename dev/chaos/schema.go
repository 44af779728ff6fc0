package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// schemaChanged adds columns as a later version does, and creates and drops a table.
func schemaChanged(ctx context.Context, s *scenario) error {
	change := func(statements ...string) func() error {
		return func() error { return schema.Exec(ctx, s.store, quiet(), statements...) }
	}
	var add, drop []string
	for _, table := range []string{cassandra.TableHistory, cassandra.TableLatest, cassandra.TableLatestByFleet} {
		add = append(add, "ALTER TABLE "+table+" ADD chaos text")
		drop = append(drop, "ALTER TABLE "+table+" DROP chaos")
	}
	err := s.breakIt("adds columns, creates a table and drops it", change(append(add, "CREATE TABLE chaos (id text PRIMARY KEY)", "DROP TABLE chaos")...))
	if err != nil {
		return err
	}
	if err := s.awaitAlerts(ctx, 10*time.Second); err != nil {
		return err
	}
	if out, err := s.command(ctx, "schema", "check"); err != nil {
		return fmt.Errorf("schema check: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	return s.heal("drops the columns", change(drop...))
}

// truncated empties the history and the latest positions. Earlier records are gone, later ones must be stored.
func truncated(ctx context.Context, s *scenario) error {
	err := s.breakIt("truncates the history and the latest positions", func() error {
		return schema.Exec(ctx, s.store, quiet(), "TRUNCATE "+cassandra.TableHistory, "TRUNCATE "+cassandra.TableLatest, "TRUNCATE "+cassandra.TableLatestByFleet)
	})
	if err != nil {
		return err
	}
	s.keptFromMs = time.Now().Add(-behind).UnixMilli()
	if err := s.awaitAlerts(ctx, 5*time.Second); err != nil {
		return err
	}
	return s.heal("continues the load", func() error { return nil })
}
