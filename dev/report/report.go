// Package report renders pages of the documentation into one PDF: Markdown by goldmark, diagrams by Mermaid and pages by
// Chromium.
package report

import (
	"bytes"
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

// Options say what is rendered, and where to.
type Options struct {
	Root    string   // absolute path of the repository
	Pages   []string // nil: Pages
	Work    string   // absolute path of a folder for intermediate files
	Out     string   // the PDF
	Version string   // on the title page
	Date    string
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// Render makes the PDF. An error names a missing program, and how to get it.
func Render(ctx context.Context, o Options) error {
	browser, err := findChromium()
	if err != nil {
		return err
	}
	if o.Pages == nil {
		o.Pages = Pages
	}
	var documents []template.HTML
	for _, name := range o.Pages {
		body, err := render(o.Root, name, o.Pages)
		if err != nil {
			return err
		}
		documents = append(documents, body)
	}
	if err := os.MkdirAll(o.Work, 0o755); err != nil {
		return err
	}
	mermaid, err := fetchMermaid(ctx, o.Work)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	values := map[string]any{"Version": o.Version, "Date": o.Date, "Documents": documents, "Mermaid": fileURL(mermaid)}
	if err := page.Execute(&text, values); err != nil {
		return err
	}
	file := filepath.Join(o.Work, "page.html")
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		return err
	}
	if err := printPage(ctx, browser, file, o.Out); err != nil {
		return fmt.Errorf("print %s: %w", file, err)
	}
	return nil
}

func fileURL(path string) template.URL {
	return template.URL((&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()) //nolint:gosec // a file of the repository
}

// fetchMermaid returns the path of Mermaid, which draws the diagrams. npm fetches it the first time and checks its
// integrity.
func fetchMermaid(ctx context.Context, work string) (string, error) {
	script := filepath.Join(work, "package", "dist", "mermaid.min.js")
	if _, err := os.Stat(script); err == nil {
		return script, nil
	}
	fetch := exec.CommandContext(ctx, "sh", "-c", "npm pack --silent mermaid@11.12.0 && tar -xzf mermaid-*.tgz package/dist/mermaid.min.js")
	fetch.Dir = work
	if out, err := fetch.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Mermaid by npm, which apt-get install npm installs: %w\n%s", err, out)
	}
	return script, nil
}

// findChromium looks in PATH, or takes the program that CHROMIUM names.
func findChromium() (string, error) {
	if path := os.Getenv("CHROMIUM"); path != "" {
		return path, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("find chromium, which makes the pages: it is not in PATH: install it, such as by apt-get install chromium, or name it in CHROMIUM")
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
	cmd := exec.CommandContext(ctx, browser, append(args, string(fileURL(file)))...)
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
