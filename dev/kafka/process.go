package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const pollEvery = 100 * time.Millisecond

// process names one process for good: the kernel hands a pid out again, but not together with its start time.
type process struct {
	pid     int
	started string // clock ticks since boot, field 22 of /proc/PID/stat
	port    int    // that the broker was started with
}

// process is what the pid file names, or the zero process.
func (b *Broker) process() (p process, err error) {
	data, err := os.ReadFile(b.pidFile())
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("read pid file: %w", err)
	}
	if _, err := fmt.Sscan(string(data), &p.pid, &p.started, &p.port); err != nil {
		return p, fmt.Errorf("read pid file %s: %q is not a pid, a start time and a port: end the broker's java process and remove the file", b.pidFile(), data)
	}
	return p, nil
}

// stat gives a process's state letter and start time; an empty time where there is no such process.
func stat(pid int) (state byte, started string, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("read state of process %d: %w", pid, err)
	}
	// The second field, in parentheses, may itself hold spaces and parentheses. What follows it begins with field 3.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, "", fmt.Errorf("read state of process %d: bad line %q", pid, data)
	}
	return fields[0][0], fields[19], nil
}

func (p process) alive() (bool, error) {
	if p.pid == 0 {
		return false, nil
	}
	state, started, err := stat(p.pid)
	return err == nil && started == p.started && state != 'Z' && state != 'X', err
}

// reap collects an ended child and says how it ended; empty where p is not our child.
func (p process) reap() string {
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(p.pid, &ws, syscall.WNOHANG, nil)
	switch {
	case err != nil || pid != p.pid:
		return ""
	case ws.Signaled():
		return " (signal " + ws.Signal().String() + ")"
	default:
		return " (exit status " + strconv.Itoa(ws.ExitStatus()) + ")"
	}
}

// launch starts the broker's process, which outlives ours, and returns it with the place in the log where its own lines
// begin.
func (b *Broker) launch(java, jars string) (p process, logFrom int64, err error) {
	log, err := openLog(b.LogFile())
	if err != nil {
		return process{}, 0, fmt.Errorf("launch kafka: %w", err)
	}
	defer log.Close()
	if logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		return process{}, 0, fmt.Errorf("launch kafka: %w", err)
	}
	cmd := exec.Command(java, fmt.Sprintf("-Xms%dM", b.heapMB), fmt.Sprintf("-Xmx%dM", b.heapMB), "-XX:+UseG1GC",
		"-XX:MaxGCPauseMillis=50", "-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem", "-Djava.net.preferIPv4Stack=true",
		"-Dlog4j2.configurationFile="+filepath.Join(b.dir, "log4j2.yaml"), "-cp", filepath.Join(jars, "*"), "kafka.Kafka", b.properties())
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: a Ctrl-C in the terminal of `up` or of a test must not reach the broker.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process{}, 0, fmt.Errorf("launch kafka: %w", err)
	}
	p.pid, p.port = cmd.Process.Pid, b.port
	_, p.started, err = stat(p.pid) // even one that ended at once is still there until it is reaped
	if err == nil {
		err = os.WriteFile(b.pidFile(), fmt.Appendf(nil, "%d %s %d\n", p.pid, p.started, p.port), 0o644)
	}
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
		_, _ = cmd.Process.Wait()
		return process{}, 0, fmt.Errorf("launch kafka: %w", err)
	}
	return p, logFrom, cmd.Process.Release()
}

// waitReady returns when the broker answers. It fails as soon as the process ends, with what it said of the reason.
func (b *Broker) waitReady(ctx context.Context, p process, logFrom int64) error {
	limited, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		alive, err := p.alive()
		if err != nil {
			return fmt.Errorf("start kafka: %w", err)
		}
		if !alive {
			return fmt.Errorf("start kafka: java ended%s before it answered; it said:\n%s\nwhole log: %s", p.reap(), complaint(b.LogFile(), logFrom), b.LogFile())
		}
		if b.answers(limited) {
			return nil
		}
		if sleep(limited, pollEvery) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("start kafka: %w", err)
		}
		return fmt.Errorf("start kafka: no answer on %s within %s: is the machine overloaded? Its log ends:\n%s\nwhole log: %s",
			b.Address(), readyWithin, complaint(b.LogFile(), logFrom), b.LogFile())
	}
}

// end makes the process end by sig and returns when it is gone and its ports are free.
func (b *Broker) end(ctx context.Context, sig syscall.Signal, within time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	p, err := b.process()
	if err != nil {
		return err
	}
	alive, err := p.alive()
	if err != nil {
		return err
	}
	if !alive {
		b.printf("kafka did not run\n")
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal kafka, pid %d: %w", p.pid, err)
	}
	for {
		if alive, err = p.alive(); err != nil {
			return err
		}
		if !alive && b.portsFree() == nil {
			break
		}
		if err := sleep(limited, pollEvery); err != nil {
			return fmt.Errorf("end kafka: pid %d or its ports are still there %s after signal %s", p.pid, within, sig)
		}
	}
	p.reap()
	b.printf("kafka ended by signal %s, pid was %d\n", sig, p.pid)
	return nil
}

// portsFree tells every port that something else holds.
func (b *Broker) portsFree() error {
	var errs []error
	for i := range 3 {
		l, err := net.Listen("tcp4", b.at(i))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s cannot be listened on: %w: end what holds it (ss -ltnp 'sport = :%d' names it) or set DEV_KAFKA_PORT", b.at(i), err, b.port+i))
			continue
		}
		l.Close()
	}
	return errors.Join(errs...)
}

// lock keeps others from changing the broker, in this process and in any other, until unlock is called. The kernel drops
// it when its holder ends, however it ends.
func (b *Broker) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock broker: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock broker: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			err = sleep(ctx, pollEvery)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock broker: %s: %w", f.Name(), err)
		}
	}
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

// keepLogs is the size in bytes above which the log is put aside when the broker starts again.
const keepLogs = 32 << 20

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > keepLogs {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
}

var routine = regexp.MustCompile(`^\[[^]]*\] (INFO|WARN) |^\s+(at |\.\.\. \d+ )`)

// complaint is what the log says beyond the routine, its last lines.
func complaint(path string, from int64) string {
	text, err := readFrom(path, from)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !routine.MatchString(line) && strings.TrimSpace(line) != "" {
			lines = append(lines, "    "+strings.TrimRight(line, "\n"))
		}
	}
	if len(lines) == 0 {
		return "    (nothing but routine)"
	}
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// readFrom reads a log from an offset, but no more than its last MiB.
func readFrom(path string, from int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(from, info.Size()-1<<20), 1<<20))
}

// Logs writes the last lines of the broker's log to w. With follow it goes on with what is added, until ctx ends.
func (b *Broker) Logs(ctx context.Context, w io.Writer, lines int, follow bool) error {
	f, err := os.Open(b.LogFile())
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("kafka has no log: it was never started")
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	text, err := readFrom(b.LogFile(), 0)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if _, err := fmt.Fprintln(w, strings.Join(all[max(0, len(all)-lines):], "\n")); err != nil || !follow {
		return err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for {
		if _, err := io.Copy(w, f); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
		if sleep(ctx, pollEvery) != nil {
			return nil
		}
	}
}
