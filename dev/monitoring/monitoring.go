// Package monitoring runs Prometheus, Alertmanager and Grafana as local processes with the configuration of this repository, on the
// standard ports for the demo and on free ports for tests.
//
// Each program has a directory with its configuration, data, log and pid file.
package monitoring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Options apply to each program.
type Options struct {
	Program string    // path; default: the result of FindPrometheus or FindAlertmanager
	Root    string    // repository with the configuration; default: the one of the working directory
	Dir     string    // absolute path for configuration, data, log and pid file of this program only
	Address string    // host:port on 127.0.0.1; default: any free port
	Out     io.Writer // progress, one line per event; nil discards it

	// Replace has pairs of old and new text for the copies of configuration files in Dir, by their paths in the directory of the
	// configuration, so that tests can shorten intervals. Each old text must occur. Grafana reads the files of the repository.
	Replace map[string][]string
}

// prepare sets the defaults, creates the directory, and writes the configuration.
func (o *Options) prepare(name string, find func() (string, error), configure func() error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("configure %s: %w", name, err)
		}
	}()
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
	if o.Address == "" {
		free, err := process.FreeAddresses(1)
		if err != nil {
			return err
		}
		o.Address = free[0]
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	return configure()
}

func (o Options) port() string {
	_, port, _ := net.SplitHostPort(o.Address)
	return port
}

// url is what people and links call it.
func (o Options) url() string { return "http://localhost:" + o.port() }

func (o Options) data() string   { return filepath.Join(o.Dir, "data") }
func (o Options) config() string { return filepath.Join(o.Dir, "config") }

// start starts the program and returns when it answers at the path ready.
func (o Options) start(ctx context.Context, name, ready string, args, environment []string) (*process.Server, error) {
	s := process.Server{
		Name: name, Dir: o.Dir, LogFile: filepath.Join(o.Dir, "log"), Address: o.Address, Ports: []process.Port{{Address: o.Address, Of: name}},
		Ready:  func(ctx context.Context) bool { return process.AnswersHTTP(ctx, "http://"+o.Address+ready) },
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

// copyConfig replaces the configuration in Dir by a copy of a directory of the repository, with the replacements.
func (o Options) copyConfig(from ...string) error {
	if err := os.RemoveAll(o.config()); err != nil {
		return err
	}
	if err := os.MkdirAll(o.config(), 0o700); err != nil { // it may contain secrets
		return err
	}
	if err := os.CopyFS(o.config(), os.DirFS(filepath.Join(append([]string{o.Root}, from...)...))); err != nil {
		return err
	}
	for file, pairs := range o.Replace {
		path := filepath.Join(o.config(), file)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(string(text), pairs[i]) {
				return fmt.Errorf("edit %s: it does not contain %q", file, pairs[i])
			}
		}
		if err := os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o644); err != nil {
			return err
		}
	}
	return nil
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

// Metric scrapes a URL in the Prometheus text format and returns the sum of the series with the name and all of the labels; -1 if
// there are none or the scrape fails within five seconds.
func Metric(url, name string, labels ...string) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var text bytes.Buffer
	if err := process.Fetch(ctx, url, &text); err != nil {
		return -1
	}
	sum, found := 0.0, false
	for line := range strings.Lines(text.String()) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &value); err == nil {
			sum, found = sum+value, true
		}
	}
	if !found {
		return -1
	}
	return sum
}
