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

// marks is the content of the cursor file. The file is older than the segments by saveInterval at most, and on a full disk
// by more.
type marks struct {
	cursor  uint64 // number before which every entry is acknowledged
	durable uint64 // number before which every entry was synced: its Append has returned, and its sender was answered
}

// loadMarks reads the cursor file; without one, nothing is acknowledged or synced. A corrupt file is logged.
// Next returns acknowledged entries again then, which changes nothing in the store.
func (s *Spool) loadMarks() (m marks, err error) {
	disk.RemoveTemporary(s.path(cursorFile))
	text, err := os.ReadFile(s.path(cursorFile))
	if errors.Is(err, os.ErrNotExist) {
		return marks{}, nil
	}
	if err != nil {
		return marks{}, err
	}
	if _, err := fmt.Sscanf(string(text), "%d %d", &m.cursor, &m.durable); err != nil || string(text) != m.text() {
		s.logger.WithField("file", s.path(cursorFile)).Warn("spool cursor corrupt, reading acknowledged entries again")
		return marks{}, nil
	}
	return m, nil
}

func (m marks) text() string {
	numbers := fmt.Sprint(m.cursor, " ", m.durable)
	return fmt.Sprintf("%s %08x\n", numbers, crc32.Checksum([]byte(numbers), castagnoli))
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

// saveCursor writes the cursor file when its content has changed.
func (s *Spool) saveCursor() error {
	s.mu.Lock()
	now := marks{s.cursor, s.next}
	s.mu.Unlock()
	if now == s.saved {
		return nil
	}
	if err := disk.ReplaceFile(s.path(cursorFile), []byte(now.text())); err != nil {
		s.metrics.failed("cursor")
		return fmt.Errorf("save cursor: %w", err)
	}
	s.saved = now
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
		if err := g.remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
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
