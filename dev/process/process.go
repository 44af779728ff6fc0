// Package process keeps hold of programs that outlive whoever started them: by pid files, which any process may go on
// with, by locks between processes, and by their logs. Processes are found through /proc, so it needs Linux.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process names one process for good: the kernel hands a pid out again, but not together with its start time.
type Process struct {
	PID     int
	Started uint64 // clock ticks since boot, field 22 of /proc/PID/stat
}

// Stat is what the kernel says of a process.
type Stat struct {
	State   byte
	Threads int
	Started uint64 // as in Process
}

// ReadStat returns false where there is no process pid.
func ReadStat(pid int) (Stat, bool, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return Stat{}, false, nil
	}
	if err != nil {
		return Stat{}, false, fmt.Errorf("read state of process %d: %w", pid, err)
	}
	// The second field is the command's name in parentheses, which may itself hold spaces and parentheses. What follows
	// it begins with field 3.
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

// Launch starts a program with both its outputs at the end of a log, and returns it with the place there where its own
// lines begin. A log larger than keep bytes is put aside first. note is for writing down which process it is: a program
// of which nobody could know does not stay.
func Launch(cmd *exec.Cmd, log string, keep int64, note func(Process) error) (p Process, logFrom int64, err error) {
	f, err := openLog(log, keep)
	if err != nil {
		return Process{}, 0, err
	}
	defer f.Close()
	if logFrom, err = f.Seek(0, io.SeekEnd); err != nil {
		return Process{}, 0, err
	}
	cmd.Stdout, cmd.Stderr = f, f
	// A session of its own: a Ctrl-C in the terminal of `up` or of a test must not reach the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Process{}, 0, err
	}
	p.PID = cmd.Process.Pid
	s, _, err := ReadStat(p.PID) // even one that ended at once is still there until it is reaped
	p.Started = s.Started
	if err == nil {
		err = note(p)
	}
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
		p.Reap()
		return Process{}, 0, err
	}
	return p, logFrom, cmd.Process.Release()
}

// State returns the kernel's letter for what p does, and false when p has ended.
func (p Process) State() (byte, bool, error) {
	if p.PID == 0 {
		return 0, false, nil
	}
	s, found, err := ReadStat(p.PID)
	if err != nil || !found || s.Started != p.Started {
		return 0, false, err
	}
	// Nobody may ever collect a zombie whose parent is gone. One with threads has yet to close its ports.
	ended := s.State == 'X' || s.State == 'Z' && s.Threads <= 1
	return s.State, !ended, nil
}

// Signal sends sig to p, which is no error when p has ended.
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

// PollEvery is how often whoever waits for a process looks again.
const PollEvery = 50 * time.Millisecond

// WaitGone returns when p has ended, and reaps it where it is a child of ours: no goroutine waits for programs, because
// they outlive whoever started them. It gives up with ctx.
func (p Process) WaitGone(ctx context.Context) error {
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

// Reap collects an ended child and says how it ended; empty where p is not our child.
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

// Read returns the process that path names, or the zero process where there is no such file.
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
		return Process{}, fmt.Errorf("read pid file %s: %q is not a pid and a start time: end the process that it is of and remove the file", path, data)
	}
	return p, nil
}

// Write puts the process into a pid file.
func (p Process) Write(path string) error {
	if err := WriteFile(path, fmt.Appendf(nil, "%d %d\n", p.PID, p.Started)); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// WriteFile replaces path whole, so that no reader and no crash sees half of it.
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

// Sleep waits, or gives up with ctx.
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
