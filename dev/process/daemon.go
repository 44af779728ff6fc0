package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Daemon is a program that outlives the program that starts it.
type Daemon struct {
	Name        string                     // for messages
	PIDFile     string                     // exists from the start until a graceful end
	LogFile     string                     // stdout and stderr
	KeepLog     int64                      // size in bytes above which the next start rotates the log
	Ready       func(context.Context) bool // reports whether the program serves
	ReadyWithin time.Duration              // time limit of a start
	Excerpt     func(log []byte) string    // selects the part of a log for an error message; nil: the last lines
}

// Start starts the program and returns when it is ready. If that fails, the error quotes the log and the program is killed.
func (d Daemon) Start(ctx context.Context, cmd *exec.Cmd) (Process, error) {
	p, logFrom, err := d.launch(cmd)
	if err != nil {
		return Process{}, fmt.Errorf("start %s: %w", d.Name, err)
	}
	if err := d.AwaitReady(ctx, p, logFrom); err != nil {
		err = errors.Join(err, p.Signal(syscall.SIGKILL))
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		return Process{}, errors.Join(err, p.AwaitEnd(limited))
	}
	return p, nil
}

// launch starts the program and writes the pid file. It also returns the offset in the log at which the output of the program
// starts.
func (d Daemon) launch(cmd *exec.Cmd) (p Process, logFrom int64, err error) {
	f, err := openLog(d.LogFile, d.KeepLog)
	if err != nil {
		return Process{}, 0, err
	}
	defer f.Close()
	if logFrom, err = f.Seek(0, io.SeekEnd); err != nil {
		return Process{}, 0, err
	}
	cmd.Stdout, cmd.Stderr = f, f
	// In its own session, the program does not receive the Ctrl-C of a terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Process{}, 0, err
	}
	p.PID = cmd.Process.Pid
	s, _, err := ReadStat(p.PID) // exists until the process is reaped
	p.Started = s.Started
	if err == nil {
		err = p.Write(d.PIDFile)
	}
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
		p.Reap()
		return Process{}, 0, err
	}
	return p, logFrom, cmd.Process.Release()
}

// AwaitReady returns when the program is ready. It fails as soon as the program ends.
func (d Daemon) AwaitReady(ctx context.Context, p Process, logFrom int64) error {
	limited, cancel := context.WithTimeout(ctx, d.ReadyWithin)
	defer cancel()
	for {
		if err := d.Running(p, logFrom); err != nil {
			return fmt.Errorf("start %w", err)
		}
		if d.Ready(limited) {
			return nil
		}
		if Sleep(limited, 2*PollEvery) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("start %s: %w", d.Name, err)
		}
		return fmt.Errorf("start %s: it is not ready after %s: is the machine overloaded? %w", d.Name, d.ReadyWithin, d.quote(logFrom))
	}
}

// Running returns nil while the process runs, else an error with its exit status and the end of its log.
func (d Daemon) Running(p Process, logFrom int64) error {
	_, alive, err := p.State()
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	if alive {
		return nil
	}
	status := p.Reap()
	if status != "" {
		status = " (" + status + ")"
	}
	return fmt.Errorf("%s: it has ended%s; %w", d.Name, status, d.quote(logFrom))
}

func (d Daemon) quote(from int64) error {
	text, err := ReadLog(d.LogFile, from)
	if err != nil {
		return err
	}
	excerpt := LastLines(text, 12)
	if d.Excerpt != nil {
		excerpt = d.Excerpt(text)
	}
	return fmt.Errorf("its log says:\n%s\nwhole log: %s", Indent(excerpt), d.LogFile)
}

// End sends a signal to the process in the pid file and returns its pid when it has ended and free returns nil; 0 if no process
// ran. A paused process continues to receive the signal. A graceful end removes the pid file. free may be nil.
func (d Daemon) End(ctx context.Context, sig syscall.Signal, within time.Duration, free func() error) (pid int, err error) {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	p, err := Read(d.PIDFile)
	if err != nil {
		return 0, fmt.Errorf("end %s: %w", d.Name, err)
	}
	_, alive, err := p.State()
	if err != nil {
		return 0, fmt.Errorf("end %s: %w", d.Name, err)
	}
	if alive {
		pid = p.PID
		if err := errors.Join(p.Signal(sig), p.Signal(syscall.SIGCONT)); err != nil {
			return 0, fmt.Errorf("end %s: %w", d.Name, err)
		}
		err := p.AwaitEnd(limited)
		for err == nil && free != nil {
			if err = free(); err == nil {
				break
			}
			if Sleep(limited, PollEvery) == nil {
				err = nil
			}
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("end %s: %w", d.Name, ctx.Err())
		}
		if err != nil {
			return 0, fmt.Errorf("end %s: pid %d or its ports are still in use %s after signal %s: %w", d.Name, p.PID, within, sig, err)
		}
	}
	if sig != syscall.SIGKILL {
		if err := os.Remove(d.PIDFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("end %s: %w", d.Name, err)
		}
	}
	return pid, nil
}
