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
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Options apply to each program.
type Options struct {
	Program string    // path; default: the result of FindPrometheus or FindAlertmanager
	Root    string    // repository with the configuration; default: the one of the working directory
	Dir     string    // absolute path for configuration, data, log and pid file of this program only
	Port    int       // on 127.0.0.1; default: any free port
	Out     io.Writer // progress, one line per event; nil discards it

	// Edit changes the copy of a configuration file in Dir, so that tests can shorten intervals. file is relative to the
	// directory of the configuration. Grafana reads the files of the repository, which are not edited.
	Edit func(file, text string) string
}

// complete sets the defaults, and stops the program that an earlier process left running in the directory.
func (o *Options) complete(ctx context.Context, find func() (string, error)) (err error) {
	if o.Root == "" {
		if o.Root, err = cluster.RepositoryRoot(); err != nil {
			return err
		}
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Program == "" {
		if o.Program, err = find(); err != nil {
			return err
		}
	}
	if err := (process.Server{Name: filepath.Base(o.Dir), Dir: o.Dir}).Stop(ctx); err != nil {
		return err
	}
	if o.Port == 0 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		o.Port = l.Addr().(*net.TCPAddr).Port
	}
	return os.MkdirAll(o.Dir, 0o755)
}

func (o Options) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)) }

// url is what people and links call it.
func (o Options) url() string { return "http://localhost:" + strconv.Itoa(o.Port) }

func (o Options) data() string   { return filepath.Join(o.Dir, "data") }
func (o Options) config() string { return filepath.Join(o.Dir, "config") }

// start starts the program and returns when it answers at the path ready.
func (o Options) start(ctx context.Context, name, ready string, args, environment []string) (*process.Server, error) {
	s := process.Server{
		Name: name, Dir: o.Dir, LogFile: filepath.Join(o.Dir, "log"), Address: o.address(), Ports: []process.Port{{Address: o.address(), Of: name}},
		Ready:  func(ctx context.Context) bool { return process.AnswersHTTP(ctx, "http://"+o.address()+ready) },
		Printf: log.New(o.Out, "", 0).Printf,
	}
	if err := process.PortsFree(s.Ports...); err != nil {
		return nil, err
	}
	cmd := exec.Command(o.Program, args...) //nolint:noctx // it outlives the caller, who stops it
	cmd.Env = append(os.Environ(), environment...)
	if err := s.Start(ctx, cmd); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx))) // removes the pid file
	}
	return &s, nil
}

// FindPrometheus looks in PATH.
func FindPrometheus() (string, error) {
	return inPath("Prometheus", "apt-get install prometheus, or extract a release of https://prometheus.io/download into a directory of PATH", "prometheus")
}

// FindAlertmanager looks in PATH. Debian names the program differently.
func FindAlertmanager() (string, error) {
	return inPath("Alertmanager", "apt-get install prometheus-alertmanager, or extract a release of https://prometheus.io/download into a directory of PATH",
		"alertmanager", "prometheus-alertmanager")
}

func inPath(name, remedy string, programs ...string) (string, error) {
	for _, p := range programs {
		if path, err := exec.LookPath(p); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: PATH has no %s: %s", name, strings.Join(programs, " and no "), remedy)
}
