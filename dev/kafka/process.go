package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// running is the broker's process.
type running struct {
	process.Process
	port int // that it was started with
}

// process is what the pid file names, or the zero process.
func (b *Broker) process() (r running, err error) {
	data, err := os.ReadFile(b.pidFile())
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read pid file: %w", err)
	}
	if _, err := fmt.Sscan(string(data), &r.PID, &r.Started, &r.port); err != nil {
		return r, fmt.Errorf("read pid file %s: %q is not a pid, a start time and a port: end the broker's java process and remove the file", b.pidFile(), data)
	}
	return r, nil
}

func (r running) alive() (bool, error) {
	_, alive, err := r.State()
	return alive, err
}

// keepLogs is the size in bytes above which the log is put aside when the broker starts again.
const keepLogs = 32 << 20

// launch starts the broker's process, which outlives ours, and returns it with the place in the log where its own lines
// begin.
func (b *Broker) launch(java, jars string) (r running, logFrom int64, err error) {
	cmd := exec.Command(java, fmt.Sprintf("-Xms%dM", b.heapMB), fmt.Sprintf("-Xmx%dM", b.heapMB), "-XX:+UseG1GC",
		"-XX:MaxGCPauseMillis=50", "-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem", "-Djava.net.preferIPv4Stack=true",
		"-Dlog4j2.configurationFile="+filepath.Join(b.dir, "log4j2.yaml"), "-cp", filepath.Join(jars, "*"), "kafka.Kafka", b.properties())
	cmd.Dir = b.dir
	r.port = b.port
	r.Process, logFrom, err = process.Launch(cmd, b.LogFile(), keepLogs, func(p process.Process) error {
		return process.WriteFile(b.pidFile(), fmt.Appendf(nil, "%d %d %d\n", p.PID, p.Started, b.port))
	})
	if err != nil {
		return running{}, 0, fmt.Errorf("launch kafka: %w", err)
	}
	return r, logFrom, nil
}

// waitReady returns when the broker answers. It fails as soon as the process ends, with what it said of the reason.
func (b *Broker) waitReady(ctx context.Context, p running, logFrom int64) error {
	limited, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		alive, err := p.alive()
		if err != nil {
			return fmt.Errorf("start kafka: %w", err)
		}
		if !alive {
			how := p.Reap()
			if how != "" {
				how = " (" + how + ")"
			}
			return fmt.Errorf("start kafka: java ended%s before it answered; it said:\n%s\nwhole log: %s", how, complaint(b.LogFile(), logFrom), b.LogFile())
		}
		if b.answers(limited) {
			return nil
		}
		if process.Sleep(limited, 2*process.PollEvery) == nil {
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
	if err := p.Signal(sig); err != nil {
		return fmt.Errorf("end kafka: %w", err)
	}
	for {
		if alive, err = p.alive(); err != nil {
			return err
		}
		if !alive && b.portsFree() == nil {
			break
		}
		if err := process.Sleep(limited, 2*process.PollEvery); err != nil {
			return fmt.Errorf("end kafka: pid %d or its ports are still there %s after signal %s", p.PID, within, sig)
		}
	}
	p.Reap()
	b.printf("kafka ended by signal %s, pid was %d\n", sig, p.PID)
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

// lock keeps others from changing the broker until unlock is called.
func (b *Broker) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = process.Lock(ctx, b.dir, func(holder string) {
		b.printf("waiting for process %s, which is changing the broker in %s\n", holder, b.dir)
	})
	if err != nil {
		return nil, fmt.Errorf("lock broker: %w", err)
	}
	return unlock, nil
}

var routine = regexp.MustCompile(`^\[[^]]*\] (INFO|WARN) |^\s+(at |\.\.\. \d+ )`)

// complaint is what the log says beyond the routine, its last lines.
func complaint(path string, from int64) string {
	text, err := process.ReadLog(path, from)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !routine.MatchString(line) && strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	if len(lines) == 0 {
		lines = append(lines, "(nothing but routine)")
	}
	return process.Indent(strings.Join(lines[max(0, len(lines)-12):], "\n"))
}

// Logs writes the last lines of the broker's log to w. With follow it goes on with what is added, until ctx ends.
func (b *Broker) Logs(ctx context.Context, w io.Writer, lines int, follow bool) error {
	err := process.ShowLog(ctx, w, b.LogFile(), lines, follow)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("kafka has no log: it was never started")
	}
	return err
}
