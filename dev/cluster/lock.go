package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const lockFile = "lock"

// lock keeps others from changing the cluster, in this process and in any other, until unlock is called. It waits for
// its turn: test packages run side by side, and the second finds running what the first has started.
// The kernel drops the lock when its holder ends, however it ends.
func (c *Cluster) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock cluster: %w", err)
	}
	path := filepath.Join(c.dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock cluster: %w", err)
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock cluster: %s: %w", path, err)
		}
		if !told {
			holder, _ := os.ReadFile(path)
			c.printf("waiting for process %s, which is changing the cluster in %s\n", strings.TrimSpace(string(holder)), c.dir)
			told = true
		}
		if err := sleep(ctx, pollEvery); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock cluster: %s: %w", path, err)
		}
	}
	// The pid is only for the message above; a lock without it is still a lock.
	if err := f.Truncate(0); err == nil {
		fmt.Fprintln(f, os.Getpid())
	}
	return func() { f.Close() }, nil
}
