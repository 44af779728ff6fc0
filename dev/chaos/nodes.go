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

func nodeKilled(ctx context.Context, t *trial) error {
	return t.nodesAway(ctx, t.or(10*time.Second, 6*time.Second), 2)
}

func dcAway(ctx context.Context, t *trial) error {
	return t.nodesAway(ctx, 15*time.Second, 1, 2)
}

func allRestarted(ctx context.Context, t *trial) error {
	return t.nodesAway(ctx, 15*time.Second, 1, 2, 3, 4)
}

// nodesAway kills nodes, and starts them again when people have heard of it.
func (t *trial) nodesAway(ctx context.Context, atLeast time.Duration, nodes ...int) error {
	err := t.inject(fmt.Sprintf("kills nodes %v", nodes), func() error {
		for _, n := range nodes {
			if err := t.Cluster.Kill(ctx, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = t.hear(ctx, atLeast)
	}
	return errors.Join(err, t.heal("starts them", func() error {
		return t.Cluster.Up(ctx)
	}))
}

func nodeStopped(ctx context.Context, t *trial) error {
	err := t.inject("stops node 1", func() error { return t.Cluster.Pause(ctx, 1) })
	if err == nil {
		err = t.hear(ctx, t.or(15*time.Second, 8*time.Second))
	}
	return errors.Join(err, t.heal("continues it", func() error { return t.Cluster.Resume(context.WithoutCancel(ctx), 1) }))
}

// diskFull fills the disk of node 4.
func diskFull(ctx context.Context, t *trial) error {
	const n = 4
	filler := filepath.Join(t.Disk, "filler")
	err := t.inject("fills the disk of node 4", func() error { return fill(filler) })
	if err == nil {
		_, complaint := t.Cluster.Nodetool(ctx, n, "flush", t.Keyspace)
		t.note("nodetool flush on the full disk: %s", outcomeOf(complaint))
		err = t.hear(ctx, 20*time.Second)
	}
	if node, e := t.Cluster.Node(n); e == nil {
		t.note("%.0f s after its disk was full node 4 is %s", time.Since(t.injected).Seconds(), node.State)
	}
	return errors.Join(err, t.heal("frees it and starts the node again", func() error {
		if err := os.Remove(filler); err != nil {
			return err
		}
		if err := t.Cluster.Kill(ctx, n); err != nil {
			return err
		}
		return t.Cluster.Start(ctx, n)
	}))
}

func outcomeOf(err error) string {
	if err == nil {
		return "it says that it did"
	}
	return strings.TrimSpace(process.LastLines([]byte(err.Error()), 1))
}

// fill writes a file until nothing more goes onto its file system.
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

// MountSmall gives node n of a cluster that does not run yet a file system of so many bytes, and returns its folder.
func MountSmall(n cluster.Node, bytes int64) (folder string, unmount func() error, err error) {
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

func linkSlow(ctx context.Context, t *trial) error {
	err := t.inject("slows the link down", func() error {
		t.Link.Slow(50*time.Millisecond, 10*time.Millisecond, 0.01, 1<<20)
		return nil
	})
	if err == nil {
		err = t.hear(ctx, 30*time.Second)
	}
	return errors.Join(err, t.heal("lets it be fast again", func() error { t.Link.Restore(); return nil }))
}
