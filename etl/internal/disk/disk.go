// Package disk makes changes of directories survive a crash of the machine.
package disk

import (
	"errors"
	"os"
)

// SyncDir syncs a directory after files in it were created, renamed or removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
