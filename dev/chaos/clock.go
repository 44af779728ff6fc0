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

// clockVariable names the file with the seconds that the clock of a fleet-etl that was built for it is off.
const clockVariable = "FLEET_CHAOS_CLOCK"

func (p *platform) clockFile() string { return filepath.Join(p.Dir, "clock") }

// clockOff is what stands in package time for this test alone. Go asks the kernel for the time by itself, so that no library that
// is loaded beforehand can give another. The monotonic clock stays as it is, as it does when somebody sets a machine's clock. The
// runtime also asks for the time where nothing may wait or call the kernel, so the file is read beside.
const clockOff = `
var chaosOff atomic.Int64 // seconds

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
	chaosOff.Store(sign * seconds)
}
`

// clockOverlay writes into a folder what go build -overlay needs to make a program whose clock can be set.
func clockOverlay(ctx context.Context, dir string) (overlay string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find Go's own sources: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.Replace(string(text), now, now+"\tsec += chaosOff.Load()\n", 1)
	const imports = "import (\n"
	changed = strings.Replace(changed, imports, imports+"\t\"sync/atomic\"\n\t\"syscall\"\n", 1)
	if len(changed) < len(text)+len("chaosOff.Load")+len("sync/atomic") {
		return "", fmt.Errorf("%s is not as this test knows it: change what it looks for", source)
	}
	edited := filepath.Join(dir, "time.go")
	if err := os.WriteFile(edited, []byte(changed+clockOff), 0o600); err != nil { //nolint:gosec // the folder is ours
		return "", err
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{source: edited}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

// setClock sets how far fleet-etl's clock is off.
func (p *platform) setClock(off time.Duration) error {
	return process.WriteFile(p.clockFile(), fmt.Appendf(nil, "%d", int64(off.Seconds())))
}

// withClock is the program of the build whose clock can be set.
func (p *platform) withClock() string { return filepath.Join(p.Dir, "fleet-etl-with-clock") }

// buildWithClock makes it, which for the first time is a build of everything that there is.
func buildWithClock(ctx context.Context, p *platform) error {
	overlay, err := clockOverlay(ctx, p.Dir)
	if err != nil {
		return err
	}
	return p.build(ctx, p.withClock(), "-overlay", overlay)
}

// clockJumps sets the clock of fleet-etl back, so that records come from the future, and ahead.
func clockJumps(ctx context.Context, t *trial) error {
	if err := t.setClock(0); err != nil {
		return err
	}
	restart := func(program string) error {
		if err := t.stopETL(ctx); err != nil {
			return err
		}
		t.program = program
		return t.startETL()
	}
	if err := restart(t.withClock()); err != nil {
		return err
	}
	ready := func() error {
		now := float64(time.Now().Unix())
		return within(ctx, time.Minute, "the canary is seen by the right clock", func() bool {
			seen := t.metric("fleet_etl_canary_last_seen_timestamp_seconds")
			return seen > now && seen < now+120
		})
	}
	if err := ready(); err != nil {
		return err
	}
	const jump, lasts = 45 * time.Minute, 15 * time.Second
	if err := t.inject("sets the clock 45 minutes back", func() error { return t.setClock(-jump) }); err != nil {
		return err
	}
	steps := func() error {
		if err := process.Sleep(ctx, lasts); err != nil {
			return err
		}
		t.load.mu.Lock()
		refused := len(t.load.refused)
		t.load.mu.Unlock()
		t.note("%d records refused as from the future while the clock was behind", refused)
		if refused == 0 {
			return errors.New("the clock was 45 minutes behind, and nothing came from the future: it was not set")
		}
		t.printf("%-18s sets it right\n", t.name)
		if err := t.setClock(0); err != nil {
			return err
		}
		right := time.Now()
		if err := ready(); err != nil {
			return err
		}
		t.note("the canary was seen again %.1f s after the clock was right again", time.Since(right).Seconds())
		t.printf("%-18s sets it 45 minutes ahead\n", t.name)
		if err := t.setClock(jump); err != nil {
			return err
		}
		return process.Sleep(ctx, lasts)
	}
	err := steps()
	return errors.Join(err, t.heal("sets it right", func() error {
		if err := t.setClock(0); err != nil {
			return err
		}
		if err := ready(); err != nil {
			return err
		}
		t.note("the canary was seen again %.1f s after the clock was right for good", time.Since(t.healed).Seconds())
		out, err := t.platform.run(ctx, "deadletters", "reprocess", "--reason", "future", "--source", "httpapi")
		if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 2) { // 2: some are from the future still, of the poison
			return fmt.Errorf("reprocess rejected records: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
		}
		if err := restart(t.usual()); err != nil {
			return err
		}
		return t.oneProcess(ctx)
	}))
}

// oneProcess waits until the store knows of the process that runs and of no other: one that was ahead has to be taken off the list like
// any that died.
func (t *trial) oneProcess(ctx context.Context) error {
	store, err := cassandra.Open(ctx, t.store, quiet(), nil)
	if err != nil {
		return err
	}
	defer store.Close()
	var left []cassandra.Instance
	err = within(ctx, derivedWithin, "one process is on the list of those that derive", func() bool {
		var err error
		left, err = store.Instances(ctx)
		return err == nil && len(left) == 1
	})
	if err != nil {
		return fmt.Errorf("%w; %v are", err, left)
	}
	return nil
}
