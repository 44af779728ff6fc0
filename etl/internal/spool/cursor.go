package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

const cursorFile = "cursor"

// loadCursor reads the number before which every entry is acknowledged; 0 when there is none. A corrupt cursor is logged
// and counted. Next returns acknowledged entries again then, which changes nothing in the store.
func (s *Spool) loadCursor() (uint64, error) {
	disk.RemoveTemporary(s.path(cursorFile))
	text, err := os.ReadFile(s.path(cursorFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var cursor uint64
	if _, err := fmt.Sscanf(string(text), "%d", &cursor); err != nil || string(text) != cursorText(cursor) {
		s.metrics.corrupt.Inc()
		s.logger.WithField("file", s.path(cursorFile)).Warn("spool cursor corrupt, reading acknowledged entries again")
		return 0, nil
	}
	return cursor, nil
}

func cursorText(cursor uint64) string {
	number := fmt.Sprint(cursor)
	return fmt.Sprintf("%s %08x\n", number, crc32.Checksum([]byte(number), castagnoli))
}

// saveLoop saves the cursor and removes finished segments until the spool is closed. The next round repeats what fails.
func (s *Spool) saveLoop() {
	ticker := time.NewTicker(saveInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			// In this order, finished segments do not come back after a crash. They are removed even when the cursor can't be
			// saved, which frees space for it on a full disk.
			err := s.saveCursor()
			if err != nil && !s.saveFailed {
				s.logger.WithError(err).Warn("saving the spool cursor failed, retrying")
			}
			s.saveFailed = err != nil
			_ = s.removeFinished()
		case <-s.closing:
			return
		}
	}
}

// saveCursor writes the cursor to disk when it has moved.
func (s *Spool) saveCursor() error {
	s.mu.Lock()
	cursor := s.cursor
	s.mu.Unlock()
	if cursor == s.savedCursor {
		return nil
	}
	if err := disk.ReplaceFile(s.path(cursorFile), []byte(cursorText(cursor))); err != nil {
		s.metrics.failed("cursor")
		return fmt.Errorf("save cursor: %w", err)
	}
	s.savedCursor = cursor
	return nil
}

// removeFinished removes finished segments.
func (s *Spool) removeFinished() error {
	s.mu.Lock()
	finished := s.finished
	s.finished = nil
	s.mu.Unlock()
	var failed error
	for _, g := range finished {
		if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.metrics.failed("remove")
			failed = err
			s.mu.Lock()
			s.finished = append(s.finished, g)
			s.mu.Unlock()
		}
	}
	if len(finished) > 0 {
		failed = errors.Join(failed, disk.SyncDir(s.dir))
	}
	return failed
}
