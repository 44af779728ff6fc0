// Package disk makes what was done to files outlast a crash of the machine.
package disk

import (
	"errors"
	"os"
)

// SyncDir brings the names in a directory to disk: those of files that were made, renamed or removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
