package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// between is a time that is left to chance.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// etlKilled kills fleet-etl at random points, mostly while it makes good what the last kill broke off.
func etlKilled(ctx context.Context, t *trial) error {
	kills := 10
	if t.Short {
		kills = 4
	}
	if err := t.inject(fmt.Sprintf("kills fleet-etl %d times", kills), func() error { return nil }); err != nil {
		return err
	}
	for range kills {
		t.killETL()
		if err := t.startETL(); err != nil {
			return err
		}
		if err := process.Sleep(ctx, between(t.rng, 200*time.Millisecond, 2500*time.Millisecond)); err != nil {
			return err
		}
	}
	return t.heal("lets it be", func() error { return nil })
}

// loadKilled kills a load of a file. The records are another fleet's than those of the running load.
func loadKilled(ctx context.Context, t *trial) error {
	const records, fleet = 12_000, "fleet-001"
	file := filepath.Join(t.Dir, "history.csv")
	start := time.Now().Add(-3 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	out, err := t.platform.run(ctx, "generate", "--records", fmt.Sprint(records), "--vehicles", "100", "--start", start, "-o", file)
	if err != nil {
		return fmt.Errorf("generate: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	command := func(settings ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, t.program, "load", file)
		cmd.Env, cmd.Dir = append(append(t.environment(), "ETL_STATE_DIR="+filepath.Join(t.Dir, "state-of-load")), settings...), t.Dir
		return cmd
	}
	if err := t.inject("kills a load again and again", func() error { return nil }); err != nil {
		return err
	}
	kills := 0
	for range 8 {
		child, err := process.StartChild(command("ETL_BUFFER_RECORDS=500", "ETL_MAX_IN_FLIGHT=2")) // so slow that a kill meets it at work
		if err != nil {
			return err
		}
		select {
		case <-time.After(between(t.rng, 300*time.Millisecond, 2*time.Second)):
			child.Kill()
			kills++
		case <-child.Done: // it was faster; the next begins anew
			if child.Err != nil {
				return fmt.Errorf("load: %w", child.Err)
			}
		}
	}
	return t.heal("lets it come to its end", func() error {
		if out, err := command().CombinedOutput(); err != nil {
			return fmt.Errorf("load: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
		}
		v, err := t.settled(ctx, fleet)
		if err != nil {
			return err
		}
		t.note("of the file: killed %d times, %d of %d records stored, verify: %d differences", kills, v.Fixes, records, len(v.Differences))
		if v.Fixes != records || len(v.Differences) > 0 {
			return errors.New(t.Notes[len(t.Notes)-1])
		}
		return nil
	})
}
