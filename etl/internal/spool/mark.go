package spool

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/disk"
)

const markFile = "mark"

// loadMark reads the number before which everything is done; 0 when there is none. A mark that can't be understood is
// logged and counted: entries that were done are given again then, which changes nothing in the store.
func (s *Spool) loadMark() (uint64, error) {
	text, err := os.ReadFile(s.path(markFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var mark uint64
	if _, err := fmt.Sscanf(string(text), "%d", &mark); err != nil || string(text) != markText(mark) {
		s.metrics.corrupt.Inc()
		s.logger.WithField("file", s.path(markFile)).Warn("spool mark is damaged; entries that were done are given again")
		return 0, nil
	}
	return mark, nil
}

func markText(mark uint64) string {
	number := fmt.Sprint(mark)
	return fmt.Sprintf("%s %08x\n", number, crc32.Checksum([]byte(number), castagnoli))
}

// keepSaving saves the mark and removes what is done until the spool is closed. What fails is counted, and tried again.
func (s *Spool) keepSaving() {
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			// The order keeps segments that are done from coming back after a crash. They go also when the mark can't be
			// saved: on a full disk that is what makes room for it.
			err := s.saveMark()
			if err != nil && !s.unsaved {
				s.logger.WithError(err).Warn("spool mark could not be saved; trying again")
			}
			s.unsaved = err != nil
			_ = s.removeFinished()
		case <-s.closing:
			return
		}
	}
}

// saveMark brings the mark to disk when it has moved.
func (s *Spool) saveMark() error {
	s.mu.Lock()
	mark := s.mark
	s.mu.Unlock()
	if mark == s.saved {
		return nil
	}
	if err := s.writeMark(mark); err != nil {
		s.metrics.failed("mark")
		return fmt.Errorf("save mark: %w", err)
	}
	s.saved = mark
	return nil
}

// removeFinished removes the segments that are done.
func (s *Spool) removeFinished() error {
	s.mu.Lock()
	finished := s.finished
	s.finished = nil
	s.mu.Unlock()
	var failed error
	var left []*segment
	for _, g := range finished {
		if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.metrics.failed("remove")
			failed, left = err, append(left, g)
		}
	}
	if len(finished) > len(left) {
		failed = errors.Join(failed, disk.SyncDir(s.dir))
	}
	s.mu.Lock()
	s.finished = append(s.finished, left...)
	s.mu.Unlock()
	return failed
}

func (s *Spool) writeMark(mark uint64) error {
	path := s.path(markFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(markText(mark))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return disk.SyncDir(s.dir)
}
