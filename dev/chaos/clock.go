package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// clockVariable names the environment variable with the path of a file. The file has the offset in seconds that package time of
// the long form's fleet-etl adds to the wall clock.
const clockVariable = "FLEET_CHAOS_CLOCK"

func (p *platform) clockFile() string { return filepath.Join(p.Dir, "clock") }

// setClock sets the offset of fleet-etl's wall clock.
func (p *platform) setClock(offset time.Duration) error {
	return process.WriteFile(p.clockFile(), fmt.Appendf(nil, "%d", int64(offset.Seconds())))
}

// clockOffset goes into package time. Go reads the clock through the vDSO, so libfaketime has no effect, and time namespaces do
// not cover the wall clock. The monotonic clock stays, as if an administrator set the clock. time.Now must not block or call the
// kernel, so a goroutine reads the file.
const clockOffset = `
var chaosOffset atomic.Int64 // seconds

func init() {
	if file, ok := syscall.Getenv("` + clockVariable + `"); ok {
		chaosRead(file)
		go func() {
			for {
				Sleep(100 * Millisecond)
				chaosRead(file)
			}
		}()
	}
}

func chaosRead(name string) {
	var text [32]byte
	n := 0
	if file, err := open(name); err == nil {
		n, _ = read(file, text[:])
		closefd(file)
	}
	seconds, sign := int64(0), int64(1)
	for _, c := range text[:max(n, 0)] {
		switch {
		case c == '-':
			sign = -1
		case c >= '0' && c <= '9':
			seconds = seconds*10 + int64(c-'0')
		}
	}
	chaosOffset.Store(sign * seconds)
}
`

// clockOverlay writes the file for go build -overlay, which adds the offset to package time.
func clockOverlay(ctx context.Context, dir string) (overlay string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	changed := string(text)
	for _, edit := range [][2]string{
		{"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "\tsec += chaosOffset.Load()\n"},
		{"import (\n", "\t\"sync/atomic\"\n\t\"syscall\"\n"},
	} {
		before := changed
		if changed = strings.Replace(changed, edit[0], edit[0]+edit[1], 1); changed == before {
			return "", fmt.Errorf("%s has no %q: adapt dev/chaos/clock.go to this version of Go", source, edit[0])
		}
	}
	edited := filepath.Join(dir, "time.go")
	if err := os.WriteFile(edited, []byte(changed+clockOffset), 0o600); err != nil { //nolint:gosec // the path is below dir
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{source: edited}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

// clockJumps sets the clock of fleet-etl back, so that records come from the future, and ahead.
func clockJumps(ctx context.Context, s *scenario) error {
	const jump, lasts = 45 * time.Minute, 15 * time.Second
	canarySeen := func() error {
		now := float64(time.Now().Unix())
		return waitFor(ctx, time.Minute, "the canary is seen at the right time", func() bool {
			seen := s.etl.metric("fleet_etl_canary_last_seen_timestamp_seconds")
			return seen > now && seen < now+120
		})
	}
	if err := s.breakIt("sets the clock back by 45 minutes", func() error { return s.setClock(-jump) }); err != nil {
		return err
	}
	jumps := func() error {
		if err := process.Sleep(ctx, lasts); err != nil {
			return err
		}
		rejected := s.load.rejectedCount()
		s.note("%d records rejected as from the future while the clock was behind", rejected)
		if rejected == 0 {
			return errors.New("the clock was 45 minutes behind, and no record came from the future: the clock was not set")
		}
		s.printf("%-18s sets it right\n", s.name)
		if err := s.setClock(0); err != nil {
			return err
		}
		right := time.Now()
		if err := canarySeen(); err != nil {
			return err
		}
		s.note("the canary was seen %.1f s after the clock was right", time.Since(right).Seconds())
		s.printf("%-18s sets it ahead by 45 minutes\n", s.name)
		if err := s.setClock(jump); err != nil {
			return err
		}
		return process.Sleep(ctx, lasts)
	}
	err := jumps()
	return errors.Join(err, s.heal("kills fleet-etl and sets the clock right", func() error {
		s.etl.kill()
		if err := errors.Join(s.setClock(0), s.etl.start()); err != nil {
			return err
		}
		if err := canarySeen(); err != nil {
			return err
		}
		out, err := s.command(ctx, "deadletters", "reprocess", "--reason", "future", "--source", "api")
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 2) { // 2: records of poison are still from the future
			return fmt.Errorf("reprocess the rejected records: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
		}
		return s.oneInstance(ctx)
	}))
}

// oneInstance waits until Cassandra lists the running instance only. The killed one left heartbeats from the future.
func (s *scenario) oneInstance(ctx context.Context) error {
	store, err := cassandra.Open(ctx, s.store, quiet(), nil)
	if err != nil {
		return err
	}
	defer store.Close()
	var listed []cassandra.Instance
	err = waitFor(ctx, derivedWithin, "one instance is listed", func() bool {
		var err error
		listed, err = store.Instances(ctx)
		return err == nil && len(listed) == 1
	})
	if err != nil {
		return fmt.Errorf("%w; listed: %v", err, listed)
	}
	return nil
}
