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

// between returns a random duration.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// etlKilled kills fleet-etl at random points, most of them during its recovery from the previous kill.
func etlKilled(ctx context.Context, s *scenario) error {
	kills := 10
	if s.Short {
		kills = 4
	}
	if err := s.breakIt(fmt.Sprintf("kills fleet-etl %d times", kills), func() error { return nil }); err != nil {
		return err
	}
	for range kills {
		s.etl.kill()
		if err := s.etl.start(); err != nil {
			return err
		}
		if err := process.Sleep(ctx, between(s.rng, 200*time.Millisecond, 2500*time.Millisecond)); err != nil {
			return err
		}
	}
	return s.heal("stops killing", func() error { return nil })
}

// loadKilled kills a load of a file. Its records belong to another fleet than those of the running load.
func loadKilled(ctx context.Context, s *scenario) error {
	const records, fleet = 12_000, "fleet-001"
	file := filepath.Join(s.Dir, "history.csv")
	start := time.Now().Add(-3 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	out, err := s.command(ctx, "generate", "--records", fmt.Sprint(records), "--vehicles", "100", "--start", start, "-o", file)
	if err != nil {
		return fmt.Errorf("generate: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	load := func(settings ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, s.program, "load", file)
		cmd.Env, cmd.Dir = append(append(s.etl.environment(), "ETL_STATE_DIR="+filepath.Join(s.Dir, "load-state")), settings...), s.Dir
		return cmd
	}
	if err := s.breakIt("kills a load several times", func() error { return nil }); err != nil {
		return err
	}
	kills := 0
	for range 8 {
		child, err := process.StartChild(load("ETL_BUFFER_RECORDS=500", "ETL_MAX_IN_FLIGHT=2")) // slow enough for the kill to interrupt it
		if err != nil {
			return err
		}
		select {
		case <-time.After(between(s.rng, 300*time.Millisecond, 2*time.Second)):
			child.Kill()
			kills++
		case <-child.Done: // it was faster; the next one starts from the beginning
			if child.Err != nil {
				return fmt.Errorf("load: %w", child.Err)
			}
		}
	}
	return s.heal("loads to the end", func() error {
		if out, err := load().CombinedOutput(); err != nil {
			return fmt.Errorf("load: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
		}
		v, err := s.verifyUntilEqual(ctx, fleet)
		if err != nil {
			return err
		}
		s.note("the file: killed %d times, %d of %d records stored, verify finds %d differences and leaves out %d devices and hours",
			kills, v.Records, records, len(v.Differences), v.left())
		if v.Records != records || len(v.Differences)+v.left() > 0 {
			return errors.New(s.Notes[len(s.Notes)-1])
		}
		return nil
	})
}
