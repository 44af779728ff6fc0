package chaos

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// pauseShort is longer than the 30 s after which other instances take over the devices of one without heartbeats.
const pauseShort = 45 * time.Second

// peerUID is the user of an instance that loses its route. No other process runs as this user.
const peerUID = 61_234

func paused(lasts time.Duration) func(context.Context, *scenario) error {
	return func(ctx context.Context, s *scenario) error {
		return s.loseInstance(ctx, "pauses the second fleet-etl", 0, lasts,
			func(peer *instance) error { return peer.signal(syscall.SIGSTOP) },
			func(peer *instance) error { return peer.signal(syscall.SIGCONT) })
	}
}

func routeLost(ctx context.Context, s *scenario) error {
	return s.loseInstance(ctx, "cuts the route of the second fleet-etl to Cassandra", peerUID, pauseShort,
		func(*instance) error { return s.Link.Cut(peerUID) },
		func(*instance) error { return s.Link.Reconnect(peerUID) })
}

// loseInstance disables a second instance for longer than the takeover time. The load stays with it, so no other instance knows the
// devices from their records. Later, a kill -9 leaves records without derived rows. They are found only if the second instance claimed
// its devices again after it was taken over.
func (s *scenario) loseInstance(ctx context.Context, how string, uid int, lasts time.Duration, disable, enable func(*instance) error) (err error) {
	peer, err := s.newInstance("fleet-etl-2-"+s.name, uid)
	if err != nil {
		return err
	}
	defer peer.kill() // after a failure
	if err := peer.start(); err != nil {
		return err
	}
	if err := waitFor(ctx, time.Minute, "the second fleet-etl is connected to Cassandra", peer.storeUp); err != nil {
		return err
	}
	s.load.sendTo(peer.api)
	if err := process.Sleep(ctx, 10*time.Second); err != nil {
		return err
	}
	err = s.breakIt(fmt.Sprintf("%s for %s", how, lasts), func() error { return disable(peer) })
	if err == nil {
		err = process.Sleep(ctx, lasts)
	}
	return errors.Join(err, s.heal("enables it and kills it 20 s later", func() error {
		if err := enable(peer); err != nil {
			return err
		}
		if err := process.Sleep(ctx, 20*time.Second); err != nil {
			return err
		}
		peer.kill()
		if err := peer.start(); err != nil {
			return err
		}
		if err := process.Sleep(ctx, 10*time.Second); err != nil {
			return err
		}
		s.load.sendTo(s.etl.api)
		drained := func() bool { return peer.storeUp() && peer.metric("fleet_etl_spool_entries") == 0 }
		if err := waitFor(ctx, drainedWithin, "the spool of the second fleet-etl is empty", drained); err != nil {
			return err
		}
		return peer.stop()
	}))
}
