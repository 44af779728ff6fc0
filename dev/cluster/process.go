package cluster

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

// process names one process for good: the kernel hands a pid out again, but not together with its start time.
type process struct {
	PID     int
	Started uint64 // clock ticks since boot, field 22 of /proc/PID/stat
}

// stat is what the kernel says of a process.
type stat struct {
	State   byte
	Threads int
	Started uint64 // as in process
}

// readStat returns false where there is no process pid.
func readStat(pid int) (stat, bool, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return stat{}, false, nil
	}
	if err != nil {
		return stat{}, false, fmt.Errorf("read state of process %d: %w", pid, err)
	}
	// The second field is the command's name in parentheses, which may itself hold spaces and parentheses. What follows
	// it begins with field 3.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, false, fmt.Errorf("read state of process %d: bad line %q", pid, data)
	}
	threads, err := strconv.Atoi(fields[17])
	if err != nil {
		return stat{}, false, fmt.Errorf("read state of process %d: threads: %w", pid, err)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, false, fmt.Errorf("read state of process %d: start time: %w", pid, err)
	}
	return stat{State: fields[0][0], Threads: threads, Started: started}, true, nil
}

// state returns the kernel's letter for what p does, and false when p has ended.
func (p process) state() (byte, bool, error) {
	if p.PID == 0 {
		return 0, false, nil
	}
	s, found, err := readStat(p.PID)
	if err != nil || !found || s.Started != p.Started {
		return 0, false, err
	}
	// Nobody may ever collect a zombie whose parent is gone. One with threads has yet to close its ports.
	ended := s.State == 'X' || s.State == 'Z' && s.Threads <= 1
	return s.State, !ended, nil
}

// signal sends sig to p, which is no error when p has ended.
func (p process) signal(sig syscall.Signal) error {
	_, alive, err := p.state()
	if err != nil || !alive {
		return err
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

const pollEvery = 50 * time.Millisecond

// waitGone returns when p has ended, and reaps it where it is a child of ours: no goroutine waits for the nodes, because
// they outlive whoever started them. It gives up with ctx.
func (p process) waitGone(ctx context.Context) error {
	for {
		_, alive, err := p.state()
		if err != nil {
			return err
		}
		if !alive {
			p.reap()
			return nil
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// reap collects an ended child and says how it ended; empty where p is not our child.
func (p process) reap() string {
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

// readPID returns the process that path names, or the zero process where there is no such file.
func readPID(path string) (process, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return process{}, nil
	}
	if err != nil {
		return process{}, fmt.Errorf("read pid file: %w", err)
	}
	var p process
	if _, err := fmt.Sscanf(strings.TrimSpace(string(data)), "%d %d", &p.PID, &p.Started); err != nil {
		return process{}, fmt.Errorf("read pid file %s: %q is not a pid and a start time: end the node's java process and remove the file", path, data)
	}
	return p, nil
}

func (p process) write(path string) error {
	if err := writeFile(path, fmt.Appendf(nil, "%d %d\n", p.PID, p.Started)); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// writeFile replaces path whole, so that no reader and no crash sees half of it.
func writeFile(path string, data []byte) error {
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

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
