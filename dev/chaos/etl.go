package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// between returns a random duration.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// killETL kills fleet-etl at random points, most of them during its recovery from the previous kill.
func killETL(ctx context.Context, s *scenario) error {
	kills := 10
	if s.Short {
		kills = 4
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
	return nil
}

// The file that is loaded. Its records belong to another fleet than the records of the running load.
const (
	fileRecords = 12_000
	fileFleet   = "fleet-001"
)

func (s *scenario) loadFile(ctx context.Context, settings ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.program, "load", filepath.Join(s.Dir, "history.csv"))
	cmd.Env, cmd.Dir = append(append(s.etl.environment(), "ETL_STATE_DIR="+filepath.Join(s.Dir, "load-state")), settings...), s.Dir
	return cmd
}

func killLoad(ctx context.Context, s *scenario) error {
	start := time.Now().Add(-3 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	if _, err := s.command(ctx, "generate", "--records", fmt.Sprint(fileRecords), "--vehicles", "100", "--start", start, "-o", "history.csv"); err != nil {
		return err
	}
	s.begin()
	kills := 0
	for range 8 {
		child, err := process.StartChild(s.loadFile(ctx, "ETL_BUFFER_RECORDS=500", "ETL_MAX_IN_FLIGHT=2")) // slow enough for the kill to interrupt it
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
	s.note("the load of the file was killed %d times", kills)
	return nil
}

func finishLoad(ctx context.Context, s *scenario) error {
	if out, err := s.loadFile(ctx).CombinedOutput(); err != nil {
		return fmt.Errorf("load: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	v, err := s.verifyUntilEqual(ctx, fileFleet)
	if err != nil {
		return err
	}
	s.note("%d of %d records of the file stored, verify finds %d differences and leaves out %d devices and hours", v.Records, fileRecords, len(v.Differences), v.left())
	if v.Records != fileRecords || len(v.Differences)+v.left() > 0 {
		return errors.New(s.notes[len(s.notes)-1])
	}
	return nil
}

// The faults below disable a second instance for longer than the takeover time. The load stays with it, so no other instance
// knows the devices from their records. Later, a kill -9 leaves records without derived rows. They are found only if the second
// instance claimed its devices again after it was taken over.

// pause is longer than the 30 s after which other instances take over the devices of one without heartbeats.
const pause = 45 * time.Second

func pausePeer(ctx context.Context, s *scenario) error {
	if err := s.startPeer(ctx, here); err != nil {
		return err
	}
	return s.peer.child.Load().Process.Signal(syscall.SIGSTOP)
}

func resumePeer(ctx context.Context, s *scenario) error {
	return s.killPeer(ctx, func() error { return s.peer.child.Load().Process.Signal(syscall.SIGCONT) })
}

func cutPeer(ctx context.Context, s *scenario) error {
	if err := s.startPeer(ctx, networkOfPeer); err != nil {
		return err
	}
	return s.Tunnel.cut()
}

func reconnectPeer(ctx context.Context, s *scenario) error { return s.killPeer(ctx, s.Tunnel.restore) }

// startPeer starts a second instance and sends it the load for a while.
func (s *scenario) startPeer(ctx context.Context, network int) error {
	peer, err := s.newInstance("fleet-etl-2-"+s.name, network)
	if err == nil {
		err = peer.start()
	}
	if err != nil {
		return err
	}
	s.peer = peer
	if err := waitFor(ctx, time.Minute, "the second fleet-etl is connected to Cassandra", s.peer.storeUp); err != nil {
		return err
	}
	s.load.sendTo(s.peer.api)
	if err := process.Sleep(ctx, 10*time.Second); err != nil {
		return err
	}
	s.begin()
	return nil
}

// killPeer enables the second instance and kills it 20 s later. It starts it again, and stops it when it has stored everything.
func (s *scenario) killPeer(ctx context.Context, enable func() error) error {
	if s.peer == nil {
		return nil // it could not be started
	}
	defer s.peer.kill() // after a failure
	if err := errors.Join(enable(), process.Sleep(ctx, 20*time.Second)); err != nil {
		return err
	}
	s.peer.kill()
	if err := errors.Join(s.peer.start(), process.Sleep(ctx, 10*time.Second)); err != nil {
		return err
	}
	s.load.sendTo(s.etl.api)
	drained := func() bool { return s.peer.storeUp() && s.peer.metric("fleet_etl_spool_entries") == 0 }
	if err := waitFor(ctx, drainedWithin, "the spool of the second fleet-etl is empty", drained); err != nil {
		return err
	}
	return s.peer.stop()
}
