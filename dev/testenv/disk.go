package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk is a file system in memory of its own.
type SmallDisk struct {
	Dir string
	t   testing.TB
}

// NewSmallDisk mounts a file system of so many KiB until the test ends. Only root can.
func NewSmallDisk(t testing.TB, kib int) SmallDisk {
	t.Helper()
	d := SmallDisk{t.TempDir(), t}
	if err := syscall.Mount("tmpfs", d.Dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
		Missing(t, Root, fmt.Sprintf("root is needed to mount a file system of %d KiB: %v", kib, err))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.Dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d SmallDisk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill takes all of the room that is left.
func (d SmallDisk) Fill() {
	d.t.Helper()
	f, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4<<10))
	}
}

// Free gives back what Fill took.
func (d SmallDisk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}
