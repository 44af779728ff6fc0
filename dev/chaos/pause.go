package chaos

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// The faults of this file disable a second instance for longer than the takeover time. The load stays with it, so no other instance
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
