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
	"strings"
	"time"
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
	drawn, err := draw(ctx, browser, o.Work, text.Bytes())
	if err != nil {
		return fmt.Errorf("draw the diagrams: %w", err)
	}
	pdf := filepath.Join(o.Work, "report.pdf")
	if _, err := browse(ctx, browser, o.Work, drawn, "--no-pdf-header-footer", "--generate-pdf-document-outline", "--print-to-pdf="+pdf); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	made, err := os.ReadFile(pdf)
	if err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return os.WriteFile(o.Out, made, 0o644) //nolint:gosec // the user names the file
}

func fileURL(path string) template.URL {
	return template.URL((&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()) //nolint:gosec // a file of the repository
}

// mermaidPackage draws the diagrams.
const mermaidPackage = "mermaid@11.12.0"

// fetchMermaid returns the path of Mermaid. npm fetches it the first time and checks its integrity.
func fetchMermaid(ctx context.Context, work string) (string, error) {
	script := filepath.Join(work, "package", "dist", "mermaid.min.js")
	if _, err := os.Stat(script); err == nil {
		return script, nil
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "", errors.New("find npm, which fetches " + mermaidPackage + ": install it, such as by apt-get install npm")
	}
	fetch := exec.CommandContext(ctx, "sh", "-c", "npm pack --silent "+mermaidPackage+" && tar -xzf mermaid-*.tgz package/dist/mermaid.min.js")
	fetch.Dir = work
	if out, err := fetch.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch %s: %w\n%s", mermaidPackage, err, out)
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

var (
	drawn   = regexp.MustCompile(`<html[^>]* data-drawn="([^"]*)"`)
	scripts = regexp.MustCompile(`(?s)<!--scripts-->.*<!--/scripts-->`)
)

// draw returns the page with its diagrams drawn and without the scripts that draw them.
func draw(ctx context.Context, browser, work string, text []byte) ([]byte, error) {
	dom, err := browse(ctx, browser, work, text, "--virtual-time-budget=60000", "--dump-dom")
	if err != nil {
		return nil, err
	}
	switch found := drawn.FindSubmatch(dom); {
	case found == nil:
		return nil, errors.New("the browser did not finish: look at page.html in " + work)
	case string(found[1]) != "all":
		return nil, fmt.Errorf("%s: look at page.html in %s", found[1], work)
	}
	return scripts.ReplaceAll(dom, nil), nil
}

// browseWithin bounds a run of the browser.
const browseWithin = 2 * time.Minute

// browse opens a page in a headless browser and returns its output.
func browse(ctx context.Context, browser, work string, text []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, browseWithin)
	defer cancel()
	file := filepath.Join(work, "page.html")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	profile, err := os.MkdirTemp(work, "profile")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(profile)
	args = append(args, "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--allow-file-access-from-files", "--user-data-dir="+profile)
	if os.Geteuid() == 0 { // the sandbox of Chromium rejects root; the page consists of our own files
		args = append(args, "--no-sandbox")
	}
	cmd := exec.CommandContext(ctx, browser, append(args, string(fileURL(file)))...)
	cmd.WaitDelay = 5 * time.Second
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		return nil, fmt.Errorf("%s: %w: %s", browser, err, strings.Join(lines[max(0, len(lines)-3):], "; "))
	}
	return out.Bytes(), nil
}
