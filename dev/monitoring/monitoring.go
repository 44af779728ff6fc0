// Package monitoring runs a real Prometheus, Alertmanager and Grafana as processes of this machine, with the configuration
// of this repository and addresses of their own: for the demo on the usual ports, for tests on free ones.
//
// Each has a folder with its configuration, its data, its log and a pid file by which a later process finds it. Processes
// are found through /proc, so it needs Linux.
package monitoring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Bounds of what a caller may have to wait for. All are ready in seconds; a first Grafana makes its database, which takes
// up to a minute on a busy machine.
const (
	readyWithin   = 3 * time.Minute
	stoppedWithin = 30 * time.Second
	killedWithin  = 15 * time.Second
)

// keepLogs is the size in bytes above which a log is put aside when its program starts again.
const keepLogs = 32 << 20

// Options say where a program runs and with what.
type Options struct {
	Program Program   // default: the one that FindPrometheus, FindAlertmanager or FindGrafana finds
	Root    string    // the repository whose configuration it takes; default: that of the working directory
	Dir     string    // for its configuration, data, log and pid file; no other program's. Required
	Port    int       // on 127.0.0.1; default: a free one
	Out     io.Writer // progress, one line an event; nil discards it

	// Edit changes a file of the repository's configuration on its way into Dir, for tests that can't wait as long as
	// people can. file is relative to the configuration's folder. Grafana's configuration is not copied.
	Edit func(file, text string) string
}

func (o Options) complete(ctx context.Context, find func() (Program, error)) (Options, error) {
	if o.Dir == "" {
		return o, errors.New("no folder to run it in: set Options.Dir")
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return o, err
	}
	if o.Root == "" {
		if o.Root, err = cluster.RepositoryRoot(); err != nil {
			return o, err
		}
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Program.Path == "" {
		if o.Program, err = find(); err != nil {
			return o, err
		}
	}
	if err := StopLeft(ctx, o.Dir); err != nil {
		return o, err
	}
	if o.Port == 0 {
		if o.Port, err = freePort(); err != nil {
			return o, err
		}
	}
	return o, os.MkdirAll(o.Dir, 0o755)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (o Options) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)) }

// url is what people and links call it.
func (o Options) url() string { return "http://localhost:" + strconv.Itoa(o.Port) }

func (o Options) data() string   { return filepath.Join(o.Dir, "data") }
func (o Options) config() string { return filepath.Join(o.Dir, "config") }

// Process is a program that Start… has started.
type Process struct {
	Name    string // Prometheus, Alertmanager or Grafana
	Address string // host:port that it serves
	URL     string // the same for a browser
	LogFile string

	pidFile string
	process process.Process
	logFrom int64
}

const pidFile = "pid"

// start runs the program and returns when it answers at the path ready. When that fails or ctx ends, it is killed.
func (o Options) start(ctx context.Context, name, ready string, args, environment []string) (*Process, error) {
	if err := process.PortFree(name, o.address()); err != nil {
		return nil, err
	}
	p := &Process{Name: name, Address: o.address(), URL: o.url(), LogFile: filepath.Join(o.Dir, "log"), pidFile: filepath.Join(o.Dir, pidFile)}
	begun := time.Now()
	cmd := exec.Command(o.Program.Path, append(o.Program.args, args...)...) //nolint:noctx // it outlives the caller, who stops it
	cmd.Dir, cmd.Env = o.Dir, append(os.Environ(), environment...)
	var err error
	p.process, p.logFrom, err = process.Launch(cmd, p.LogFile, keepLogs, func(running process.Process) error { return running.Write(p.pidFile) })
	if err != nil {
		return nil, fmt.Errorf("launch %s: %w", name, err)
	}
	if err := p.waitReady(ctx, ready); err != nil {
		return nil, errors.Join(err, p.end(context.WithoutCancel(ctx), syscall.SIGKILL, killedWithin))
	}
	fmt.Fprintf(o.Out, "%s serves on %s after %.1f s, pid %d\n", name, p.URL, time.Since(begun).Seconds(), p.process.PID)
	return p, nil
}

func (p *Process) waitReady(ctx context.Context, path string) error {
	limited, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for {
		if err := p.Running(); err != nil {
			return fmt.Errorf("start %w", err)
		}
		request, err := http.NewRequestWithContext(limited, http.MethodGet, "http://"+p.Address+path, nil)
		if err != nil {
			return fmt.Errorf("start %s: %w", p.Name, err)
		}
		if response, err := client.Do(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		if process.Sleep(limited, 2*process.PollEvery) == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("start %s: %w", p.Name, err)
		}
		return fmt.Errorf("start %s: %s%s is not ready within %s; %w", p.Name, p.URL, path, readyWithin, p.said())
	}
}

// Running is nil while the program runs, and else says how it ended, with the end of its log.
func (p *Process) Running() error {
	_, alive, err := p.process.State()
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if alive {
		return nil
	}
	how := p.process.Reap()
	if how != "" {
		how = " (" + how + ")"
	}
	return fmt.Errorf("%s: it has ended%s; %w", p.Name, how, p.said())
}

func (p *Process) said() error {
	text, err := process.ReadLog(p.LogFile, p.logFrom)
	if err != nil {
		return err
	}
	return fmt.Errorf("its log ends:\n%s\nwhole log: %s", process.Indent(process.LastLines(text, 12)), p.LogFile)
}

// Stop ends the program in order, and by force when it takes too long. One that has ended is no error.
func (p *Process) Stop(ctx context.Context) error {
	err := p.end(ctx, syscall.SIGTERM, stoppedWithin)
	if err != nil && ctx.Err() == nil {
		err = p.end(ctx, syscall.SIGKILL, killedWithin)
	}
	return err
}

// Kill ends the program at once, as a crash does.
func (p *Process) Kill(ctx context.Context) error { return p.end(ctx, syscall.SIGKILL, killedWithin) }

func (p *Process) end(ctx context.Context, sig syscall.Signal, within time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := p.process.Signal(sig)
	if err == nil {
		err = p.process.WaitGone(limited)
	}
	if err != nil {
		return fmt.Errorf("end %s, pid %d, by signal %s: %w", p.Name, p.process.PID, sig, err)
	}
	if err := os.Remove(p.pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end %s: %w", p.Name, err)
	}
	return nil
}

// StopLeft ends the program that an earlier process, which was killed itself, has left running in dir.
func StopLeft(ctx context.Context, dir string) error {
	p := Process{Name: filepath.Base(dir), pidFile: filepath.Join(dir, pidFile)}
	var err error
	if p.process, err = process.Read(p.pidFile); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	if p.process.PID == 0 {
		return nil
	}
	return p.Stop(ctx)
}
