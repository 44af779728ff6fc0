package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

// text is a target of one file: its contents are in force, and "bad" contents are rejected.
type text struct {
	file    string
	inForce string
}

func (x *text) target(name string) Target {
	return Target{
		Name:  name,
		Files: func() ([]string, error) { return []string{x.file}, nil },
		Load: func() (func(), error) {
			read, err := os.ReadFile(x.file)
			if err != nil {
				return nil, err
			}
			switch string(read) {
			case "bad":
				return nil, errors.New("line 1: bad")
			case "panic":
				panic("parser fault")
			}
			return func() { x.inForce = string(read) }, nil
		},
	}
}

func (x *text) write(t *testing.T, contents string) {
	t.Helper()
	if err := os.WriteFile(x.file, []byte(contents), 0o600); err != nil {
		t.Fatal(err)
	}
}

type fixture struct {
	*Coordinator
	rules, tokens *text
	logs          *test.Hook
}

func setUp(t *testing.T, interval time.Duration) fixture {
	t.Helper()
	dir := t.TempDir()
	rules, tokens := &text{file: filepath.Join(dir, "rules"), inForce: "1"}, &text{file: filepath.Join(dir, "tokens"), inForce: "1"}
	rules.write(t, "1")
	tokens.write(t, "1")
	logger, logs := test.NewNullLogger()
	c := New([]Target{rules.target("alert rules"), tokens.target("tokens")}, interval, logger, prometheus.NewRegistry())
	return fixture{c, rules, tokens, logs}
}

func (f fixture) expect(t *testing.T, rules, tokens string, successful float64) {
	t.Helper()
	if f.rules.inForce != rules || f.tokens.inForce != tokens {
		t.Errorf("in force: rules %q, tokens %q; want %q, %q", f.rules.inForce, f.tokens.inForce, rules, tokens)
	}
	if got := testutil.ToFloat64(f.successful); got != successful {
		t.Errorf("fleet_etl_config_last_reload_successful = %g, want %g", got, successful)
	}
}

func TestReloadAppliesAllTargets(t *testing.T) {
	f := setUp(t, 0)
	f.rules.write(t, "2")
	f.tokens.write(t, "2")
	before := testutil.ToFloat64(f.timestamp)
	time.Sleep(2 * time.Millisecond)
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "2", "2", 1)
	if after := testutil.ToFloat64(f.timestamp); after <= before {
		t.Errorf("time of the last success stayed at %f", after)
	}
}

func TestFailedReloadKeepsEverything(t *testing.T) {
	for _, contents := range []string{"bad", "panic"} {
		f := setUp(t, 0)
		f.rules.write(t, "2")
		f.tokens.write(t, contents)
		err := f.Reload()
		if err == nil || !strings.Contains(err.Error(), "reload tokens: ") {
			t.Errorf("error = %v, want one that names the target", err)
		}
		f.expect(t, "1", "1", 0)
		if entry := f.logs.LastEntry(); entry == nil || entry.Level != logrus.ErrorLevel || entry.Data["error"] != err {
			t.Errorf("last log entry is %v, want the error", entry)
		}
		f.tokens.write(t, "2")
		if err := f.Reload(); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "2", "2", 1)
	}
}

func TestHangupReloads(t *testing.T) {
	f := setUp(t, 0)
	f.rules.write(t, "2")
	f.runUntilLogged(t, func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	})
	f.expect(t, "2", "1", 1)
}

// runUntilLogged runs the coordinator, calls trigger, and returns after the next log line.
func (f fixture) runUntilLogged(t *testing.T, trigger func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	trigger()
	for deadline := time.Now().Add(30 * time.Second); f.logs.LastEntry() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no reload within 30 s")
		}
	}
}

func TestChangedFilesAreReloadedOnceStable(t *testing.T) {
	f := setUp(t, 0)
	f.check()
	f.expect(t, "1", "1", 1)
	f.rules.write(t, "ba") // being written
	f.check()
	f.rules.write(t, "bad")
	f.check()
	f.expect(t, "1", "1", 1)
	f.check()
	f.expect(t, "1", "1", 0)
	logged := len(f.logs.AllEntries())
	f.check()
	f.check()
	if n := len(f.logs.AllEntries()); n != logged {
		t.Errorf("unchanged files were reloaded again: %d log lines, want %d", n, logged)
	}
	f.rules.write(t, "1")
	f.check()
	f.check()
	f.expect(t, "1", "1", 1)
	if err := os.Remove(f.tokens.file); err != nil {
		t.Fatal(err)
	}
	f.check()
	f.check()
	f.expect(t, "1", "1", 0)
}

func TestRunChecksFiles(t *testing.T) {
	f := setUp(t, time.Millisecond)
	f.rules.write(t, "2")
	f.runUntilLogged(t, func() {})
	f.expect(t, "2", "1", 1)
}

// A mistake in the alert rules must not keep a revoked token valid, and an unreadable file may revoke all tokens.
func TestTargetThatStandsAlone(t *testing.T) {
	f := setUp(t, 0)
	f.targets[1].Alone = true
	f.rules.write(t, "bad")
	f.tokens.write(t, "2")
	if f.Reload() == nil {
		t.Fatal("the rules are bad")
	}
	f.expect(t, "1", "2", 0)

	f.tokens.write(t, "bad")
	_ = f.Reload()
	f.expect(t, "1", "2", 0)
	f.targets[1].Failed = func() { f.tokens.inForce = "none" }
	_ = f.Reload()
	f.expect(t, "1", "none", 0)
	f.rules.write(t, "3")
	f.tokens.write(t, "3")
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	f.expect(t, "3", "3", 1)
}
