package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

func sleepUntil(ctx context.Context, at time.Time) error { return process.Sleep(ctx, time.Until(at)) }

// schemaChanged adds columns as a later version would, and makes and drops a table.
func schemaChanged(ctx context.Context, t *trial) error {
	change := func(statements ...string) func() error {
		return func() error { return cassandra.Exec(ctx, t.store, quiet(), statements...) }
	}
	tables := []string{cassandra.TableHistory, cassandra.TableLatest, cassandra.TableLatestByFleet}
	var add, drop []string
	for _, table := range tables {
		add = append(add, "ALTER TABLE "+table+" ADD chaos text")
		drop = append(drop, "ALTER TABLE "+table+" DROP chaos")
	}
	if err := t.inject("adds columns, makes a table and drops it", change(append(add, "CREATE TABLE chaos (id text PRIMARY KEY)", "DROP TABLE chaos")...)); err != nil {
		return err
	}
	if err := t.hear(ctx, 10*time.Second); err != nil {
		return err
	}
	if out, err := t.platform.run(ctx, "schema", "check"); err != nil {
		return fmt.Errorf("schema check: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	return t.heal("drops the columns", change(drop...))
}

// truncated empties the history and the latest fixes. What was stored before is gone, as it was told to be; all that is sent after
// it is stored.
func truncated(ctx context.Context, t *trial) error {
	err := t.inject("truncates the history and the latest fixes", func() error {
		return cassandra.Exec(ctx, t.store, quiet(), "TRUNCATE "+cassandra.TableHistory, "TRUNCATE "+cassandra.TableLatest, "TRUNCATE "+cassandra.TableLatestByFleet)
	})
	if err != nil {
		return err
	}
	t.keptFromMs = time.Now().Add(-behind).UnixMilli()
	if err := t.hear(ctx, 5*time.Second); err != nil {
		return err
	}
	return t.heal("lets the load go on", func() error { return nil })
}
