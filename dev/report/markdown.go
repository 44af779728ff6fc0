package report

import (
	"bytes"
	"fmt"
	"html/template"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// sources is the place of files that are not in the report.
const sources = "https://github.com/fleettracing/fleet-tracing/blob/main/"

// render renders a document. Its links lead to the other pages of the report, or to the repository.
func render(root, name string, pages []string) (template.HTML, error) {
	source, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return "", fmt.Errorf("%s is missing: write it, or take it out of report.Pages: %w", name, err)
	}
	markdown := newMarkdown()
	tree := markdown.Parser().Parse(text.NewReader(source))
	_ = ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			if id, ok := n.AttributeString("id"); ok {
				n.SetAttributeString("id", append([]byte(prefix(name)), id.([]byte)...))
			}
		case *ast.Link:
			n.Destination = link(name, n.Destination, pages)
		case *ast.Image:
			n.Destination = []byte(filepath.ToSlash(filepath.Join(root, path.Dir(name), string(n.Destination))))
		}
		return ast.WalkContinue, nil
	})
	var body bytes.Buffer
	if err := markdown.Renderer().Render(&body, source, tree); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return template.HTML(body.String()), nil //nolint:gosec // our own documentation
}

// newMarkdown returns a parser that gives headings the anchors of GitHub, as long as they are in ASCII and without underscores.
func newMarkdown() goldmark.Markdown {
	return goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
}

// prefix keeps the anchors of documents apart.
func prefix(name string) string { return strings.TrimSuffix(path.Base(name), ".md") + "-" }

func link(name string, destination []byte, pages []string) []byte {
	to := string(destination)
	if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
		return destination
	}
	file, anchor, _ := strings.Cut(to, "#")
	target := name
	if file != "" {
		target = path.Join(path.Dir(name), file)
	}
	if slices.Contains(pages, target) {
		return []byte("#" + prefix(target) + anchor)
	}
	if anchor != "" {
		target += "#" + anchor
	}
	return []byte(sources + target)
}
