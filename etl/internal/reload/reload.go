// Package reload applies changed configuration files to a running process: on SIGHUP, on request, and when the files change.
//
// A reload is all or nothing. Every target first loads its files without effect. Only if all of them succeed are the new
// contents applied. Otherwise the process keeps what it has, logs the error, and reports it in a metric. A target may stand
// alone: a mistake in the alert rules must not keep a revoked token valid.
package reload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// Target is configuration that comes from files.
type Target struct {
	Name string // for logs and errors, for example "alert rules"
	// Files returns the paths whose contents trigger a reload when they change.
	Files func() ([]string, error)
	// Load reads and checks the files. It returns a function that puts them into effect and can't fail.
	Load func() (apply func(), err error)
	// Alone puts the contents into effect also when another target fails.
	Alone bool
	// Failed is called when Load fails; nil keeps the contents in effect.
	Failed func()
}

// Open loads a value from files, stores it in current, and returns the target that reloads it.
func Open[T any](name string, current *atomic.Pointer[T], load func() (*T, error), files ...string) (Target, error) {
	t := Target{Name: name, Files: func() ([]string, error) { return files, nil }, Load: func() (func(), error) {
		value, err := load()
		return func() { current.Store(value) }, err
	}}
	apply, err := t.Load()
	if err == nil {
		apply()
	}
	return t, err
}

// Coordinator reloads its targets together. Its methods are safe for concurrent use.
type Coordinator struct {
	targets  []Target
	interval time.Duration
	logger   logrus.FieldLogger
	hangups  chan os.Signal

	successful prometheus.Gauge
	timestamp  prometheus.Gauge

	mu        sync.Mutex // one reload at a time
	attempted []byte     // fingerprint of the files at the last reload, successful or not
	pending   []byte     // fingerprint at the last check since then
}

// New returns a coordinator of targets whose files are as they were loaded at start-up. interval is the time between two
// checks for changed files; 0 disables them. From now until Run returns, SIGHUP no longer ends the process.
func New(targets []Target, interval time.Duration, logger logrus.FieldLogger, reg prometheus.Registerer) *Coordinator {
	f := promutil.With(reg)
	c := &Coordinator{
		targets: targets, interval: interval, logger: logger, hangups: make(chan os.Signal, 1),
		successful: f.Gauge("fleet_etl_config_last_reload_successful",
			"Whether the last reload of configuration files succeeded (1) or failed (0). Loading them at start-up counts as a success."),
		timestamp: f.Gauge("fleet_etl_config_last_reload_success_timestamp_seconds",
			"Unix time of the last successful reload of configuration files."),
	}
	c.successful.Set(1)
	c.timestamp.SetToCurrentTime()
	c.attempted = c.fingerprint()
	signal.Notify(c.hangups, syscall.SIGHUP)
	return c
}

// Run reloads on each SIGHUP, and after the files have changed, until ctx ends.
func (c *Coordinator) Run(ctx context.Context) {
	defer signal.Stop(c.hangups)
	var due <-chan time.Time
	if c.interval > 0 {
		ticker := time.NewTicker(c.interval)
		defer ticker.Stop()
		due = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.hangups:
			_ = c.Reload() // it logs and counts a failure itself
		case <-due:
			c.check()
		}
	}
}

// check reloads if the files differ from those of the last reload. A difference counts once it has stayed the same for
// two checks in a row: files that are being written are left alone.
func (c *Coordinator) check() {
	current := c.fingerprint()
	c.mu.Lock()
	due := slices.Equal(current, c.pending) && !slices.Equal(current, c.attempted)
	c.pending = current
	c.mu.Unlock()
	if due {
		_ = c.Reload()
	}
}

// Reload loads the files of all targets and, if all are valid, applies them. On an error nothing changes but the targets that
// stand alone.
func (c *Coordinator) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempted, c.pending = c.fingerprint(), nil
	applies := make([]func(), 0, len(c.targets))
	var failed []error
	for _, t := range c.targets {
		apply, err := load(t)
		if err != nil {
			failed = append(failed, fmt.Errorf("reload %s: %w", t.Name, err))
			if t.Failed != nil {
				t.Failed()
			}
			continue
		}
		if t.Alone {
			apply()
			continue
		}
		applies = append(applies, apply)
	}
	if err := errors.Join(failed...); err != nil {
		c.successful.Set(0)
		c.logger.WithError(err).Error("configuration reload failed, keeping the current configuration; a restart with these files would fail")
		return err
	}
	for _, apply := range applies {
		apply()
	}
	c.successful.Set(1)
	c.timestamp.SetToCurrentTime()
	c.logger.WithField("targets", len(c.targets)).Info("configuration reloaded")
	return nil
}

// load calls a target's Load and turns a panic into an error: a reload must not end the process.
func load(t Target) (apply func(), err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return t.Load()
}

// fingerprint is a hash of the names and contents of all files. Files that can't be read count with their error.
func (c *Coordinator) fingerprint() []byte {
	h := sha256.New()
	for _, t := range c.targets {
		files, err := t.Files()
		fmt.Fprintf(h, "%s %d %v\n", t.Name, len(files), err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			fmt.Fprintf(h, "%s %d %v\n", file, len(text), err)
			_, _ = h.Write(text) // a hash accepts everything
		}
	}
	return h.Sum(nil)
}
