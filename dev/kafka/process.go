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

// daemon describes the process of the broker.
func (b *Broker) daemon() process.Daemon {
	return process.Daemon{
		Name: "kafka", PIDFile: b.pidFile(), LogFile: b.LogFile(), KeepLog: 32 << 20, Ready: b.answers, ReadyWithin: readyWithin, Excerpt: errorsOnly,
	}
}

// start starts the process and returns when the broker serves.
func (b *Broker) start(ctx context.Context, java, jars string) (process.Process, error) {
	cmd := exec.Command(java, fmt.Sprintf("-Xms%dM", b.heapMB), fmt.Sprintf("-Xmx%dM", b.heapMB), "-XX:+UseG1GC", //nolint:noctx // it outlives the caller
		"-XX:MaxGCPauseMillis=50", "-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem", "-Djava.net.preferIPv4Stack=true",
		"-Dlog4j2.configurationFile="+filepath.Join(b.dir, "log4j2.yaml"), "-cp", filepath.Join(jars, "*"), "kafka.Kafka", b.properties())
	cmd.Dir = b.dir
	return b.daemon().Start(ctx, cmd)
}

// end ends the process with a signal and returns when its ports are free.
func (b *Broker) end(ctx context.Context, sig syscall.Signal, within time.Duration) error {
	pid, err := b.daemon().End(ctx, sig, within, b.portsFree)
	switch {
	case err != nil:
		return err
	case pid == 0:
		b.printf("kafka was not running\n")
	default:
		b.printf("kafka ended by signal %s, pid was %d\n", sig, pid)
	}
	return nil
}

// portsFree returns an error that names every port in use.
func (b *Broker) portsFree() error {
	var errs []error
	for i := range 3 {
		l, err := net.Listen("tcp4", b.at(i))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is not available: %w: end the program that uses it (ss -ltnp 'sport = :%d' shows it) or set DEV_KAFKA_PORT", b.at(i), err, b.port+i))
			continue
		}
		l.Close()
	}
	return errors.Join(errs...)
}

// lock locks the broker until unlock is called.
func (b *Broker) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = process.Lock(ctx, b.dir, func(holder string) {
		b.printf("waiting for process %s, which changes the broker in %s\n", holder, b.dir)
	})
	if err != nil {
		return nil, fmt.Errorf("lock broker: %w", err)
	}
	return unlock, nil
}

var routine = regexp.MustCompile(`^\[[^]]*\] (INFO|WARN) |^\s+(at |\.\.\. \d+ )`)

// errorsOnly returns the last lines of a log without routine messages and stack frames.
func errorsOnly(log []byte) string {
	var lines []string
	for line := range strings.Lines(string(log)) {
		if !routine.MatchString(line) && strings.TrimSpace(line) != "" {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	if len(lines) == 0 {
		return "(the log has no errors)"
	}
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// Logs writes the last lines of the log to w. With follow, it also writes new lines until ctx ends.
func (b *Broker) Logs(ctx context.Context, w io.Writer, lines int, follow bool) error {
	err := process.ShowLog(ctx, w, b.LogFile(), lines, follow)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("kafka has no log: it was never started")
	}
	return err
}
