package chaos

import (
	"context"
	"encoding/binary"
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

// clockVariable names the environment variable with the path of a file. The file has the offset in seconds, an int64, that package
// time of the long form's fleet-etl adds to the wall clock.
const clockVariable = "FLEET_CHAOS_CLOCK"

func (p *platform) clockFile() string { return filepath.Join(p.Dir, "clock") }

// setClock sets the offset of fleet-etl's wall clock.
func (p *platform) setClock(offset time.Duration) error {
	file, err := os.OpenFile(p.clockFile(), os.O_CREATE|os.O_WRONLY, 0o644) // not truncated, because it is mapped
	if err != nil {
		return err
	}
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(offset/time.Second)), 0)
	return errors.Join(err, file.Close())
}

// chaosOffset is a file of package time. Go reads the clock through the vDSO, so libfaketime has no effect, and time namespaces do not
// cover the wall clock. The monotonic clock stays, as if an administrator set the clock. time.Now must not call the kernel, so the
// file is mapped into memory.
const chaosOffset = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var chaosOffset = new(atomic.Int64) // seconds

func init() {
	if name, ok := syscall.Getenv("` + clockVariable + `"); ok {
		file, err := syscall.Open(name, syscall.O_RDONLY, 0)
		if err != nil {
			panic("open " + name + ": " + err.Error())
		}
		page, err := syscall.Mmap(file, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			panic("map " + name + ": " + err.Error())
		}
		chaosOffset = (*atomic.Int64)(unsafe.Pointer(&page[0]))
	}
}
`

// clockOverlay writes the file for go build -overlay, which adds the offset to package time.
func clockOverlay(ctx context.Context, dir string) (overlay string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find GOROOT: %w", err)
	}
	pkg := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		return "", err
	}
	const clock = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.Replace(string(text), clock, clock+"\tsec += chaosOffset.Load()\n", 1)
	if changed == string(text) {
		return "", fmt.Errorf("time.go of %s has no %q: adapt dev/chaos/clock.go to this version of Go", pkg, clock)
	}
	replaced := map[string]string{}
	for name, source := range map[string]string{"time.go": changed, "chaos.go": chaosOffset} {
		replaced[filepath.Join(pkg, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(source), 0o600); err != nil {
			return "", err
		}
	}
	overlay = filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	return overlay, errors.Join(err, os.WriteFile(overlay, list, 0o600))
}

// moveClock sets the clock of fleet-etl back, so that records come from the future, right, and ahead.
func moveClock(ctx context.Context, s *scenario) error {
	const jump, lasts = 45 * time.Minute, 15 * time.Second
	if err := errors.Join(s.setClock(-jump), process.Sleep(ctx, lasts)); err != nil {
		return err
	}
	rejected, _ := s.load.rejections()
	s.note("%d records rejected as from the future while the clock was behind", rejected)
	if rejected == 0 {
		return errors.New("the clock was 45 minutes behind, and no record came from the future: the clock was not set")
	}
	if err := s.setClock(0); err != nil {
		return err
	}
	right := time.Now()
	if err := s.awaitCanary(ctx); err != nil {
		return err
	}
	s.note("the canary was seen %.1f s after the clock was right", time.Since(right).Seconds())
	return errors.Join(s.setClock(jump), process.Sleep(ctx, lasts))
}

func setClockRight(ctx context.Context, s *scenario) error {
	s.etl.kill()
	if err := errors.Join(s.setClock(0), s.etl.start()); err != nil {
		return err
	}
	if err := s.awaitCanary(ctx); err != nil {
		return err
	}
	_, err := s.command(ctx, "deadletters", "reprocess", "--reason", "future", "--source", "api")
	if err != nil && exitStatus(err) != 2 { // 2: records of poison are still from the future
		return err
	}
	err = waitFor(ctx, derivedWithin, "the killed instance is taken over", func() bool { return s.etl.metric("fleet_etl_claims_taken_over_total") > 0 })
	if err != nil {
		return err
	}
	// It stays listed while its devices send, and an instance that ends releases them.
	if err := errors.Join(s.etl.stop(), s.etl.start()); err != nil {
		return err
	}
	return s.oneInstance(ctx)
}

// awaitCanary waits until the canary is seen at the right time.
func (s *scenario) awaitCanary(ctx context.Context) error {
	now := float64(time.Now().Unix())
	return waitFor(ctx, time.Minute, "the canary is seen at the right time", func() bool {
		seen := s.etl.metric("fleet_etl_canary_last_seen_timestamp_seconds")
		return seen > now && seen < now+120
	})
}

// oneInstance waits until Cassandra lists the running instance only. The killed one left heartbeats from the future.
func (s *scenario) oneInstance(ctx context.Context) error {
	store, err := cassandra.Open(ctx, s.store, quiet(), nil)
	if err != nil {
		return err
	}
	defer store.Close()
	return waitFor(ctx, derivedWithin, "one instance is listed", func() bool {
		listed, err := store.Instances(ctx)
		return err == nil && len(listed) == 1
	})
}
