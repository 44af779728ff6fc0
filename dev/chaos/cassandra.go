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

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

func killNodes(nodes ...int) action {
	return func(ctx context.Context, s *scenario) error {
		for _, n := range nodes {
			if err := s.Cluster.Kill(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}
}

func startNodes(ctx context.Context, s *scenario) error { return s.Cluster.Up(ctx) }

// nodeOfSmallDisk is the node that MountSmall gives its own file system.
const nodeOfSmallDisk = 4

func fillDisk(ctx context.Context, s *scenario) error {
	if err := fill(filepath.Join(s.Disk, "filler")); err != nil {
		return err
	}
	said := "no error"
	if _, err := s.Cluster.Nodetool(ctx, nodeOfSmallDisk, "flush", s.Keyspace); err != nil {
		said = strings.TrimSpace(process.LastLines([]byte(err.Error()), 1))
	}
	s.note("nodetool flush on the full disk: %s", said)
	return nil
}

func freeDisk(ctx context.Context, s *scenario) error {
	if node, err := s.Cluster.Node(nodeOfSmallDisk); err == nil {
		s.note("node 4 is %s %.0f s after its disk was full", node.State, time.Since(s.injected).Seconds())
	}
	if err := os.Remove(filepath.Join(s.Disk, "filler")); err != nil {
		return err
	}
	return errors.Join(s.Cluster.Kill(ctx, nodeOfSmallDisk), s.Cluster.Up(ctx))
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

// MountSmall mounts a file system of a size in bytes on the directory of the last, stopped node. Without root it does nothing and
// returns no directory.
func MountSmall(nodes []cluster.Node, bytes int64) (dir string, unmount func() error, err error) {
	if !isRoot() {
		return "", func() error { return nil }, nil
	}
	dir = nodes[nodeOfSmallDisk-1].Dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	if err := syscall.Mount("chaos", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return "", nil, fmt.Errorf("mount a file system on %s: %w", dir, err)
	}
	return dir, func() error {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the file system on %s: %w", dir, err)
		}
		return nil
	}, nil
}

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
