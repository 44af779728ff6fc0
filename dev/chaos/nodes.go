package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

func nodeKilled(ctx context.Context, s *scenario) error {
	return s.killNodes(ctx, s.or(10*time.Second, 6*time.Second), 2)
}

func dcDown(ctx context.Context, s *scenario) error { return s.killNodes(ctx, 15*time.Second, 1, 2) }

func allRestarted(ctx context.Context, s *scenario) error {
	return s.killNodes(ctx, 15*time.Second, 1, 2, 3, 4)
}

// killNodes kills nodes, and starts them again after the expected alerts.
func (s *scenario) killNodes(ctx context.Context, atLeast time.Duration, nodes ...int) error {
	err := s.breakIt(fmt.Sprintf("kills nodes %v", nodes), func() error {
		for _, n := range nodes {
			if err := s.Cluster.Kill(ctx, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.awaitAlerts(ctx, atLeast)
	}
	return errors.Join(err, s.heal("starts them", func() error { return s.Cluster.Up(ctx) }))
}

func nodePaused(ctx context.Context, s *scenario) error {
	err := s.breakIt("pauses node 1", func() error { return s.Cluster.Pause(ctx, 1) })
	if err == nil {
		err = s.awaitAlerts(ctx, s.or(15*time.Second, 8*time.Second))
	}
	return errors.Join(err, s.heal("resumes it", func() error { return s.Cluster.Resume(context.WithoutCancel(ctx), 1) }))
}

// diskFull fills the disk of node 4.
func diskFull(ctx context.Context, s *scenario) error {
	const n = 4
	filler := filepath.Join(s.Disk, "filler")
	err := s.breakIt("fills the disk of node 4", func() error { return fill(filler) })
	if err == nil {
		said := "no error"
		if _, err := s.Cluster.Nodetool(ctx, n, "flush", s.Keyspace); err != nil {
			said = strings.TrimSpace(process.LastLines([]byte(err.Error()), 1))
		}
		s.note("nodetool flush on the full disk: %s", said)
		err = s.awaitAlerts(ctx, 20*time.Second)
	}
	if node, e := s.Cluster.Node(n); e == nil {
		s.note("node 4 is %s %.0f s after its disk was full", node.State, time.Since(s.injected).Seconds())
	}
	return errors.Join(err, s.heal("frees the disk and starts the node", func() error {
		if err := os.Remove(filler); err != nil {
			return err
		}
		if err := s.Cluster.Kill(ctx, n); err != nil {
			return err
		}
		return s.Cluster.Start(ctx, n)
	}))
}

// fill writes a file until its file system is full to the last byte.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}

// MountSmall mounts a file system of a size in bytes on the directory of a stopped node. Without root it does nothing and returns
// no directory.
func MountSmall(n cluster.Node, bytes int64) (dir string, unmount func() error, err error) {
	if !isRoot() {
		return "", func() error { return nil }, nil
	}
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return "", nil, err
	}
	if err := syscall.Mount("chaos", n.Dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return "", nil, fmt.Errorf("mount a file system for %s: %w", n, err)
	}
	return n.Dir, func() error {
		if err := syscall.Unmount(n.Dir, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the file system of %s: %w", n, err)
		}
		return nil
	}, nil
}

func linkSlow(ctx context.Context, s *scenario) error {
	err := s.breakIt("slows the network down", func() error {
		s.Link.Slow(50*time.Millisecond, 10*time.Millisecond, 0.01, 1<<20)
		return nil
	})
	if err == nil {
		err = s.awaitAlerts(ctx, 30*time.Second)
	}
	return errors.Join(err, s.heal("restores the network", func() error { s.Link.Restore(); return nil }))
}
