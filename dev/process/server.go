// Package process runs servers that outlive the program that starts them (Server) and programs that end with it (Child). Pid files
// identify a server to later programs, and file locks order changes between processes. Processes are found through /proc, so the
// package needs Linux.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Time limits, for a busy machine.
const (
	readyWithin   = 5 * time.Minute
	stoppedWithin = time.Minute
	killedWithin  = 15 * time.Second
)

// PollEvery is the polling interval of the waits for processes.
const PollEvery = 50 * time.Millisecond

// Server is a server in a directory, running or stopped. Every process of this machine can manage it.
type Server struct {
	Name    string                           // for messages
	Dir     string                           // has its pid file; its working directory unless the command has another
	LogFile string                           // stdout and stderr since its latest start; LogFile.1 has those of the start before
	Address string                           // for clients, host:port
	Ports   []Port                           // on which it listens
	Ready   func(context.Context) bool       // reports whether it serves
	Printf  func(format string, args ...any) // receives a line per start and end; nil discards them
}

// State is the state of a server.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"  // by Pause
	Stopped State = "stopped" // by Stop, or never started
	Dead    State = "dead"    // killed, crashed, or running when the machine stopped
)

func (s Server) pidFile() string { return filepath.Join(s.Dir, "pid") }

func (s Server) printf(format string, args ...any) {
	if s.Printf != nil {
		s.Printf(format, args...)
	}
}

// State returns the state and the pid of the server. The pid is 0 if there is no such process. A dead server has a pid until its
// parent reaps it.
func (s Server) State() (state State, pid int, err error) {
	text, err := os.ReadFile(s.pidFile())
	if errors.Is(err, os.ErrNotExist) {
		return Stopped, 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("%s: read pid file: %w", s.Name, err)
	}
	var started uint64
	if _, err := fmt.Sscanf(string(text), "%d %d", &pid, &started); err != nil {
		return "", 0, fmt.Errorf("%s: read pid file %s: %q is not a pid and a start time: end the process and remove the file", s.Name, s.pidFile(), text)
	}
	stat, err := readStat(pid)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return Dead, 0, nil
	case err != nil:
		return "", 0, fmt.Errorf("%s: read the state of process %d: %w", s.Name, pid, err)
	case stat.Starttime != started: // the kernel reuses pids, but never together with the start time
		return Dead, 0, nil
	case stat.State == "X", stat.State == "Z" && stat.NumThreads <= 1: // a zombie with threads still holds its ports
		return Dead, pid, nil
	case stat.State == "T":
		return Paused, pid, nil
	}
	return Running, pid, nil
}

func readStat(pid int) (procfs.ProcStat, error) {
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return proc.Stat()
}

// Start starts the server and returns when it is ready. If that fails, the error quotes the log and the server is killed.
func (s Server) Start(ctx context.Context, cmd *exec.Cmd) error {
	begun := time.Now()
	if err := s.launch(cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	if err := s.AwaitReady(ctx); err != nil {
		if s.Running() == nil {
			err = errors.Join(err, s.Kill(context.WithoutCancel(ctx)))
		}
		return err
	}
	s.printf("%s serves on %s after %.1f s, pid %d", s.Name, s.Address, time.Since(begun).Seconds(), cmd.Process.Pid)
	return nil
}

// launch starts the program with a new log and writes the pid file.
func (s Server) launch(cmd *exec.Cmd) error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Rename(s.LogFile, s.LogFile+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.Create(s.LogFile)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.Dir == "" {
		cmd.Dir = s.Dir
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it does not receive the Ctrl-C of a terminal
	if err := cmd.Start(); err != nil {
		return err
	}
	stat, err := readStat(cmd.Process.Pid) // exists until the process is reaped
	if err == nil {
		err = WriteFile(s.pidFile(), fmt.Appendf(nil, "%d %d\n", stat.PID, stat.Starttime))
	}
	if err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return nil
}

// AwaitReady returns when the server is ready. It fails as soon as the server ends.
func (s Server) AwaitReady(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		if err := s.Running(); err != nil {
			return fmt.Errorf("start %w", err)
		}
		if s.Ready(limited) {
			return nil
		}
		if Sleep(limited, 2*PollEvery) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
		return fmt.Errorf("start %s: it is not ready after %s: is the machine overloaded? %w", s.Name, readyWithin, s.quoteLog())
	}
}

// Running returns nil while the server runs, else an error with its exit status and the end of its log.
func (s Server) Running() error {
	state, pid, err := s.State()
	if err != nil {
		return err
	}
	if state == Running || state == Paused {
		return nil
	}
	return fmt.Errorf("%s: it has ended%s; %w", s.Name, reap(pid), s.quoteLog())
}

// reap reaps an ended child and returns its exit status in parentheses; empty if the process is not a child of this one.
func reap(pid int) string {
	var status syscall.WaitStatus
	if pid == 0 {
		return ""
	}
	if reaped, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); err != nil || reaped != pid {
		return ""
	}
	if status.Signaled() {
		return " (signal " + status.Signal().String() + ")"
	}
	return " (exit status " + strconv.Itoa(status.ExitStatus()) + ")"
}

func (s Server) quoteLog() error {
	text, err := os.ReadFile(s.LogFile)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return fmt.Errorf("its log says:\n%s\nwhole log: %s", Indent(excerpt(text)), s.LogFile)
}

// Stop ends the server with SIGTERM, or with SIGKILL if it takes more than a minute. It does nothing if the server does not run.
func (s Server) Stop(ctx context.Context) error {
	err := s.end(ctx, syscall.SIGTERM, stoppedWithin)
	if err != nil && ctx.Err() == nil {
		return s.Kill(ctx)
	}
	return err
}

// Kill ends the server with SIGKILL. It does nothing if the server does not run.
func (s Server) Kill(ctx context.Context) error { return s.end(ctx, syscall.SIGKILL, killedWithin) }

// end sends a signal and returns when the server has ended and its ports are free. A paused server continues to receive the signal.
// A graceful end removes the pid file.
func (s Server) end(ctx context.Context, sig syscall.Signal, within time.Duration) error {
	state, pid, err := s.State()
	if err != nil {
		return err
	}
	if state == Running || state == Paused {
		limited, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if err := errors.Join(signal(pid, sig), signal(pid, syscall.SIGCONT)); err != nil {
			return fmt.Errorf("end %s: %w", s.Name, err)
		}
		if err := s.awaitEnd(limited); err != nil {
			return fmt.Errorf("end %s: pid %d or its ports are still in use after signal %s: %w", s.Name, pid, sig, errors.Join(ctx.Err(), err))
		}
		s.printf("%s %s, pid was %d", s.Name, sig, pid)
	} else {
		s.printf("%s was not running", s.Name)
	}
	if sig == syscall.SIGKILL {
		return nil
	}
	if err := os.Remove(s.pidFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end %s: %w", s.Name, err)
	}
	return nil
}

// awaitEnd returns when the process has ended and its ports are free. No goroutine waits for servers, because they outlive this
// process.
func (s Server) awaitEnd(ctx context.Context) error {
	for {
		state, pid, err := s.State()
		if err != nil {
			return err
		}
		err = fmt.Errorf("it is %s", state)
		if state == Dead || state == Stopped {
			reap(pid)
			if err = PortsFree(s.Ports...); err == nil {
				return nil
			}
		}
		if Sleep(ctx, PollEvery) != nil {
			return err
		}
	}
}

// signal sends a signal to a process, which may have ended.
func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}

// Pause stops the server with SIGSTOP until Resume. Its connections stay open, as during a long garbage collection.
func (s Server) Pause(ctx context.Context) error { return s.enter(ctx, Paused, syscall.SIGSTOP) }

// Resume continues a paused server.
func (s Server) Resume(ctx context.Context) error { return s.enter(ctx, Running, syscall.SIGCONT) }

func (s Server) enter(ctx context.Context, want State, sig syscall.Signal) error {
	for {
		state, pid, err := s.State()
		if err != nil || state == want {
			return err
		}
		if state != Running && state != Paused {
			return fmt.Errorf("make %s %s: it is %s: start it first", s.Name, want, state)
		}
		if err := signal(pid, sig); err != nil {
			return err
		}
		if err := Sleep(ctx, PollEvery); err != nil {
			return fmt.Errorf("make %s %s: %w", s.Name, want, err)
		}
	}
}

// AnswersHTTP reports whether a URL has status 200.
func AnswersHTTP(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return Fetch(ctx, url, io.Discard) == nil
}

// Fetch writes the content of a URL to w. A status other than 200 is an error.
func Fetch(ctx context.Context, url string, w io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Close = true // a restarted server gets no connection of the one before
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return fmt.Errorf("fetch %s: %s %s", url, response.Status, text)
	}
	if _, err := io.Copy(w, response.Body); err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	return nil
}

// WriteFile replaces a file atomically.
func WriteFile(path string, data []byte) error {
	next := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(next, data, 0o644); err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	return os.Rename(next, path)
}

// Sleep waits for d, or until ctx ends, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Child is a program that ends together with this process, however this process ends.
type Child struct {
	Process *os.Process
	Done    chan struct{} // closed when the program has ended
	Err     error         // valid once Done is closed; nil for exit status 0
}

// StartChild starts a program. It receives SIGTERM if this process is killed.
func StartChild(cmd *exec.Cmd) (*Child, error) {
	// In its own group, the program does not receive Ctrl-C: this process stops it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c := &Child{Done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the child ends
		defer close(c.Done)
		err := cmd.Start()
		c.Process = cmd.Process
		started <- err
		if err == nil {
			c.Err = cmd.Wait()
		}
	}()
	return c, <-started
}

// Stop ends the program with SIGTERM, or with SIGKILL after a timeout.
func (c *Child) Stop(timeout time.Duration) error {
	_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.Done:
		return c.Err
	case <-time.After(timeout):
		c.Kill()
		return errors.New("it was killed, because it still ran " + timeout.String() + " after SIGTERM")
	}
}

// Kill ends the program with SIGKILL.
func (c *Child) Kill() {
	_ = c.Process.Kill()
	<-c.Done
}
