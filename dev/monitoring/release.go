package monitoring

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// release is the URL of a gzipped tar archive with one directory. url.sha256 has its SHA-256.
type release struct{ url string }

func officialRelease() release {
	return release{fmt.Sprintf("https://dl.grafana.com/oss/release/grafana-%s.%s-%s.tar.gz", GrafanaVersion, runtime.GOOS, runtime.GOARCH)}
}

// name returns the file name of the archive without .tar.gz.
func (r release) name() string { return strings.TrimSuffix(path.Base(r.url), ".tar.gz") }

// fetch downloads the archive, checks it, and extracts its directory as to.
func (r release) fetch(ctx context.Context, to string, printf func(format string, args ...any)) error {
	asking, cancel := context.WithTimeout(ctx, 10*time.Second) // without access to the server, fail within seconds
	defer cancel()
	var sum strings.Builder
	if err := process.Fetch(asking, r.url+".sha256", &sum); err != nil {
		return err
	}
	want, _, _ := strings.Cut(strings.TrimSpace(sum.String()), " ")
	if len(want) != 2*sha256.Size {
		return fmt.Errorf("fetch %s.sha256: %q is not a SHA-256", r.url, want)
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return process.Install(to, func(tmp, content string) error {
		archive, err := os.Create(filepath.Join(tmp, "archive"))
		if err != nil {
			return err
		}
		defer archive.Close()
		printf("downloading %s into %s", r.url, to)
		hash := sha256.New()
		if err := process.Fetch(limited, r.url, io.MultiWriter(archive, hash)); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != want {
			return fmt.Errorf("fetch %s: its SHA-256 is %s, not %s: try again", r.url, got, want)
		}
		if err := os.Mkdir(content, 0o755); err != nil {
			return err
		}
		tar := exec.CommandContext(limited, "tar", "-xzf", archive.Name(), "-C", content, "--strip-components=1")
		if out, err := tar.CombinedOutput(); err != nil {
			return fmt.Errorf("extract %s: %w: %s", r.url, err, process.LastLines(out, 3))
		}
		return nil
	})
}
