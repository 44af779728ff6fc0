// Package monitoring runs Prometheus, Alertmanager and Grafana as local processes with the configuration of this repository, on the
// standard ports for the demo and on free ports for tests.
//
// Each program has a directory with its configuration, data, log and pid file.
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

// Time limits. All programs are ready in seconds, but the first start of Grafana creates its database, which takes up to a minute on
// a busy machine.
const (
	readyWithin   = 3 * time.Minute
	stoppedWithin = 30 * time.Second
	killedWithin  = 15 * time.Second
)

// Options apply to each program.
type Options struct {
	Program Program   // default: the result of FindPrometheus, FindAlertmanager or FindGrafana
	Root    string    // repository with the configuration; default: the one of the working directory
	Dir     string    // for configuration, data, log and pid file of this program only; required
	Port    int       // on 127.0.0.1; default: any free port
	Out     io.Writer // progress, one line per event; nil discards it

	// Edit changes the copy of a configuration file in Dir, so that tests can shorten intervals. file is relative to the
	// directory of the configuration. Grafana reads the files of the repository, which are not edited.
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

// Process is a program that a Start function started.
type Process struct {
	Name    string // Prometheus, Alertmanager or Grafana
	Address string // host:port
	URL     string // for browsers
	LogFile string

	daemon  process.Daemon
	process process.Process
}

func daemon(name, dir string) process.Daemon {
	return process.Daemon{
		Name: name, PIDFile: filepath.Join(dir, "pid"), LogFile: filepath.Join(dir, "log"), KeepLog: 32 << 20, ReadyWithin: readyWithin,
	}
}

// start starts the program and returns when it answers at the path ready.
func (o Options) start(ctx context.Context, name, ready string, args, environment []string) (*Process, error) {
	if err := process.PortFree(name, o.address()); err != nil {
		return nil, err
	}
	p := &Process{Name: name, Address: o.address(), URL: o.url(), daemon: daemon(name, o.Dir)}
	p.LogFile = p.daemon.LogFile
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	p.daemon.Ready = func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Address+ready, nil)
		if err != nil {
			return false
		}
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	begun := time.Now()
	cmd := exec.Command(o.Program.Path, append(o.Program.args, args...)...) //nolint:noctx // it outlives the caller, who stops it
	cmd.Dir, cmd.Env = o.Dir, append(os.Environ(), environment...)
	var err error
	if p.process, err = p.daemon.Start(ctx, cmd); err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.daemon.PIDFile))
	}
	fmt.Fprintf(o.Out, "%s serves on %s after %.1f s, pid %d\n", name, p.URL, time.Since(begun).Seconds(), p.process.PID)
	return p, nil
}

// Running returns nil while the program runs, else an error with its exit status and the end of its log.
func (p *Process) Running() error { return p.daemon.Running(p.process, 0) }

// Stop ends the program with SIGTERM, or with SIGKILL if it takes too long. It returns nil if the program has already ended.
func (p *Process) Stop(ctx context.Context) error {
	_, err := p.daemon.End(ctx, syscall.SIGTERM, stoppedWithin, nil)
	if err != nil && ctx.Err() == nil {
		return p.Kill(ctx)
	}
	return err
}

// Kill ends the program with SIGKILL.
func (p *Process) Kill(ctx context.Context) error {
	_, err := p.daemon.End(ctx, syscall.SIGKILL, killedWithin, nil)
	return errors.Join(err, os.RemoveAll(p.daemon.PIDFile))
}

// StopLeft stops the program that an earlier process left running in dir.
func StopLeft(ctx context.Context, dir string) error {
	return (&Process{daemon: daemon(filepath.Base(dir), dir)}).Stop(ctx)
}
