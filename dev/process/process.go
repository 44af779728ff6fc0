// Package process runs programs that outlive the program that starts them (Daemon) and programs that end with it (Child). Pid files
// identify a daemon to later programs, and file locks order changes between processes. Processes are found through /proc, so the
// package needs Linux.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process identifies a process. The kernel reuses pids, but never together with the start time.
type Process struct {
	PID     int
	Started uint64 // clock ticks since boot, field 22 of /proc/PID/stat
}

// Stat is an excerpt of /proc/PID/stat.
type Stat struct {
	State   byte
	Threads int
	Started uint64 // as in Process
}

// ReadStat returns false if there is no process with the pid.
func ReadStat(pid int) (Stat, bool, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return Stat{}, false, nil
	}
	if err != nil {
		return Stat{}, false, fmt.Errorf("read state of process %d: %w", pid, err)
	}
	// The second field is the name of the command in parentheses, which may contain spaces and parentheses. Field 3 follows it.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return Stat{}, false, fmt.Errorf("read state of process %d: bad line %q", pid, data)
	}
	threads, err := strconv.Atoi(fields[17])
	if err != nil {
		return Stat{}, false, fmt.Errorf("read state of process %d: threads: %w", pid, err)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Stat{}, false, fmt.Errorf("read state of process %d: start time: %w", pid, err)
	}
	return Stat{State: fields[0][0], Threads: threads, Started: started}, true, nil
}

// State returns the kernel's letter for the state of p, and false if p has ended.
func (p Process) State() (byte, bool, error) {
	if p.PID == 0 {
		return 0, false, nil
	}
	s, found, err := ReadStat(p.PID)
	if err != nil || !found || s.Started != p.Started {
		return 0, false, err
	}
	// A zombie whose parent has ended may never be reaped. A zombie with threads still holds its ports.
	ended := s.State == 'X' || s.State == 'Z' && s.Threads <= 1
	return s.State, !ended, nil
}

// Signal sends sig to p. It returns nil if p has ended.
func (p Process) Signal(sig syscall.Signal) error {
	_, alive, err := p.State()
	if err != nil || !alive {
		return err
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// PollEvery is the polling interval of the waits for processes.
const PollEvery = 50 * time.Millisecond

// AwaitEnd returns when p has ended, and reaps it if it is a child of this process. No goroutine waits for daemons, because they
// outlive this process.
func (p Process) AwaitEnd(ctx context.Context) error {
	for {
		_, alive, err := p.State()
		if err != nil {
			return err
		}
		if !alive {
			p.Reap()
			return nil
		}
		if err := Sleep(ctx, PollEvery); err != nil {
			return err
		}
	}
}

// Reap reaps an ended child and returns its exit status as text; empty if p is not a child of this process.
func (p Process) Reap() string {
	var ws syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(p.PID, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		switch {
		case err != nil || pid != p.PID:
			return ""
		case ws.Signaled():
			return "signal " + ws.Signal().String()
		default:
			return "exit status " + strconv.Itoa(ws.ExitStatus())
		}
	}
}

// Read reads a pid file. It returns the zero process if there is none.
func Read(path string) (Process, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Process{}, nil
	}
	if err != nil {
		return Process{}, fmt.Errorf("read pid file: %w", err)
	}
	var p Process
	if _, err := fmt.Sscanf(strings.TrimSpace(string(data)), "%d %d", &p.PID, &p.Started); err != nil {
		return Process{}, fmt.Errorf("read pid file %s: %q is not a pid and a start time: end the process and remove the file", path, data)
	}
	return p, nil
}

// Write writes a pid file.
func (p Process) Write(path string) error {
	if err := WriteFile(path, fmt.Appendf(nil, "%d %d\n", p.PID, p.Started)); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// WriteFile replaces a file atomically.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

// Sleep waits for d, or until ctx ends, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
