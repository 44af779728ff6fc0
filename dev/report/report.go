// Package report renders pages of the documentation into one PDF: Markdown by goldmark, diagrams by Mermaid and pages by
// Chromium.
package report

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
)

// Pages are the documents of the report in their order.
var Pages = []string{"docs/performance.md", "docs/resilience.md", "docs/architecture.md"}

// Options say what is rendered, and where to.
type Options struct {
	Root    string   // of the repository
	Pages   []string // paths in it, in the order of the report; nil is Pages
	Work    string   // folder for what is made on the way
	Out     string   // the PDF
	Version string   // what stands on the title page
	Date    string
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// scripts are what renders the diagrams; they have no business in the page that is printed.
var scripts = regexp.MustCompile(`(?s)<!--scripts-->.*<!--/scripts-->`)

// Render makes the PDF. An error names what is missing, and how to get it.
func Render(ctx context.Context, o Options) error {
	browser, err := findChromium()
	if err != nil {
		return err
	}
	var documents []*document
	diagrams := 0
	if o.Pages == nil {
		o.Pages = Pages
	}
	for _, path := range o.Pages {
		d, err := read(o.Root, path, o.Pages)
		if err != nil {
			return err
		}
		documents = append(documents, d)
		diagrams += d.diagrams
	}
	if err := os.MkdirAll(o.Work, 0o755); err != nil {
		return err
	}
	mermaid, err := fetchMermaid(ctx, o.Work)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	err = page.Execute(&text, map[string]any{
		"Version": o.Version, "Date": o.Date, "Documents": documents, "Mermaid": template.URL(fileURL(mermaid)), //nolint:gosec // a file of our own
	})
	if err != nil {
		return err
	}
	drawn, err := browser.draw(ctx, o.Work, text.Bytes(), diagrams)
	if err != nil {
		return err
	}
	return browser.print(ctx, o.Work, scripts.ReplaceAll(drawn, nil), o.Out)
}

func fileURL(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}

// missing is a document that can't be read.
func missing(path string, err error) error {
	return fmt.Errorf("%s is missing: it is part of the report; write it, or take it out of report.Pages: %w", path, err)
}
