// Package report renders pages of the documentation into one PDF: Markdown by goldmark, diagrams by Mermaid and pages by
// Chromium.
package report

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Pages are the documents of the report in their order.
var Pages = []string{"docs/performance.md", "docs/resilience.md", "docs/architecture.md"}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// Render makes a PDF of pages of the repository at root, which is an absolute path. An error names a missing program, and
// how to get it.
func Render(ctx context.Context, root string, pages []string, pdf string) error {
	browser, err := findChromium()
	if err != nil {
		return err
	}
	var documents []template.HTML
	for _, name := range pages {
		body, err := render(root, name, pages)
		if err != nil {
			return err
		}
		documents = append(documents, body)
	}
	work := filepath.Join(root, ".dev", "report")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	if err := fetchMermaid(ctx, work); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := page.Execute(&text, documents); err != nil {
		return err
	}
	file := filepath.Join(work, "page.html")
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		return err
	}
	if err := printPage(ctx, browser, file, pdf); err != nil {
		return fmt.Errorf("print %s: %w", file, err)
	}
	return nil
}

// fetchMermaid fetches Mermaid, which draws the diagrams, the first time. npm checks its integrity.
func fetchMermaid(ctx context.Context, work string) error {
	const script = "package/dist/mermaid.min.js" // as page.html has it
	if _, err := os.Stat(filepath.Join(work, script)); err == nil {
		return nil
	}
	fetch := exec.CommandContext(ctx, "sh", "-c", "npm pack --silent mermaid@11.12.0 && tar -xzf mermaid-*.tgz "+script)
	fetch.Dir = work
	if out, err := fetch.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch Mermaid by npm, which apt-get install npm installs: %w\n%s", err, out)
	}
	return nil
}

// findChromium looks in PATH, or takes the program that CHROMIUM names.
func findChromium() (string, error) {
	path, err := exec.LookPath(cmp.Or(os.Getenv("CHROMIUM"), "chromium"))
	if err != nil {
		return "", fmt.Errorf("find chromium, which makes the pages: install it, such as by apt-get install chromium, or name it in CHROMIUM: %w", err)
	}
	return path, nil
}

// printWithin bounds a run of the browser.
const printWithin = 2 * time.Minute

// drawn is what the page logs when its diagrams are drawn, or which one cannot be drawn.
var drawn = regexp.MustCompile(`(?s)"drawn: (.*?)", source:`)

// printPage prints a page into a PDF by a headless browser.
func printPage(ctx context.Context, browser, file, pdf string) error {
	ctx, cancel := context.WithTimeout(ctx, printWithin)
	defer cancel()
	profile, err := os.MkdirTemp("", "fleet-report-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(profile)
	args := []string{
		"--headless", "--disable-gpu", "--disable-dev-shm-usage", "--allow-file-access-from-files", "--user-data-dir=" + profile, "--enable-logging=stderr",
		"--virtual-time-budget=60000", "--no-pdf-header-footer", "--generate-pdf-document-outline", "--print-to-pdf=" + pdf,
	}
	if os.Geteuid() == 0 { // the sandbox of Chromium rejects root; the page consists of our own files
		args = append(args, "--no-sandbox")
	}
	cmd := exec.CommandContext(ctx, browser, append(args, (&url.URL{Scheme: "file", Path: file}).String())...)
	cmd.WaitDelay = 5 * time.Second
	var log bytes.Buffer
	cmd.Stderr = &log
	err = cmd.Run()
	if found := drawn.FindStringSubmatch(log.String()); err == nil && found == nil {
		err = errors.New("the page did not finish")
	} else if err == nil && found[1] != "all" {
		return errors.New(found[1])
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", browser, err, process.LastLines(log.Bytes(), 3))
	}
	return nil
}
