package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// chromium is a browser without a window.
type chromium struct{ path string }

// renderTime bounds a run of the browser.
const renderTime = 2 * time.Minute

// findChromium looks in PATH, or takes what CHROMIUM names.
func findChromium() (*chromium, error) {
	if path := os.Getenv("CHROMIUM"); path != "" {
		return &chromium{path}, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return &chromium{path}, nil
		}
	}
	return nil, errors.New("find chromium, which makes the pages: it is not in PATH: install it, such as by apt-get install chromium, or name it in CHROMIUM")
}

// outcome is what the page tells of its diagrams.
var outcome = regexp.MustCompile(`<html[^>]* data-diagrams="([^"]*)"`)

// draw gives a page as it is once its diagrams are drawn.
func (c *chromium) draw(ctx context.Context, work string, page []byte, diagrams int) ([]byte, error) {
	file := filepath.Join(work, "page.html")
	if err := os.WriteFile(file, page, 0o644); err != nil {
		return nil, err
	}
	drawn, err := c.run(ctx, work, "--virtual-time-budget=60000", "--dump-dom", fileURL(file))
	if err != nil {
		return nil, fmt.Errorf("draw the diagrams: %w", err)
	}
	found := outcome.FindSubmatch(drawn)
	if found == nil {
		return nil, errors.New("draw the diagrams: the browser did not come to their end: look at " + file)
	}
	if got := string(found[1]); got != fmt.Sprint(diagrams) {
		return nil, fmt.Errorf("draw the diagrams: %s, of %d: look at %s", got, diagrams, file)
	}
	return drawn, nil
}

// print makes the PDF of a page.
func (c *chromium) print(ctx context.Context, work string, page []byte, out string) error {
	file := filepath.Join(work, "drawn.html")
	if err := os.WriteFile(file, page, 0o644); err != nil {
		return err
	}
	made := filepath.Join(work, "report.pdf")
	os.Remove(made) // a browser that fails may leave what was there
	if _, err := c.run(ctx, work, "--no-pdf-header-footer", "--generate-pdf-document-outline", "--print-to-pdf="+made, fileURL(file)); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	pdf, err := os.ReadFile(made)
	if err != nil {
		return fmt.Errorf("print the report: the browser made none: %w", err)
	}
	if err := os.WriteFile(out, pdf, 0o644); err != nil { //nolint:gosec // the user names the file
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (c *chromium) run(ctx context.Context, work string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, renderTime)
	defer cancel()
	profile, err := os.MkdirTemp(work, "profile")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(profile)
	common := []string{"--headless", "--disable-gpu", "--disable-dev-shm-usage", "--allow-file-access-from-files", "--user-data-dir=" + profile}
	if os.Geteuid() == 0 { // Chromium's sandbox refuses root; the page is of our own files
		common = append(common, "--no-sandbox")
	}
	cmd := exec.CommandContext(ctx, c.path, append(common, args...)...)
	cmd.WaitDelay = 5 * time.Second
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		return nil, fmt.Errorf("%s: %w: %s", c.path, err, strings.Join(lines[max(0, len(lines)-3):], "; "))
	}
	return out.Bytes(), nil
}
