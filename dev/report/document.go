package report

import (
	"bytes"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// sources is where files are that are no part of the report.
const sources = "https://github.com/fleettracing/fleet-tracing/blob/main/"

// document is a page of the documentation as a part of the report.
type document struct {
	Body     template.HTML
	Contents []heading
	diagrams int
}

// heading is an entry of the table of contents.
type heading struct {
	Level int
	ID    string
	Title string
}

func read(root, name string, pages []string) (*document, error) {
	source, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return nil, missing(name, err)
	}
	d := &document{}
	markdown := newMarkdown(renderer.WithNodeRenderers(util.Prioritized(blocks{}, 1)))
	tree := markdown.Parser().Parse(text.NewReader(source), parser.WithContext(parser.NewContext(parser.WithIDs(newAnchors(prefix(name))))))
	var wrong error
	err = ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			id, _ := n.AttributeString("id")
			if d.Contents = append(d.Contents, heading{n.Level, string(id.([]byte)), plain(n, source)}); n.Level > 2 {
				d.Contents = d.Contents[:len(d.Contents)-1]
			}
		case *ast.Image:
			n.Destination, wrong = image(root, name, n.Destination)
		case *ast.Link:
			n.Destination = link(name, n.Destination, pages)
		case *ast.FencedCodeBlock:
			if string(n.Language(source)) == "mermaid" {
				d.diagrams++
			}
		}
		return ast.WalkContinue, wrong
	})
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if err := markdown.Renderer().Render(&body, source, tree); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	d.Body = template.HTML(body.String()) //nolint:gosec // of our own documentation
	return d, nil
}

func newMarkdown(options ...renderer.Option) goldmark.Markdown {
	return goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithParserOptions(parser.WithAutoHeadingID()),
		goldmark.WithRendererOptions(options...))
}

// plain is the text of a node.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Segment.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// prefix tells the anchors of one document from those of another.
func prefix(name string) string { return strings.TrimSuffix(path.Base(name), ".md") + "-" }

func image(root, name string, destination []byte) ([]byte, error) {
	if strings.Contains(string(destination), "://") {
		return nil, fmt.Errorf("%s: image %s: the report has no images from elsewhere; put it into docs/", name, destination)
	}
	file := filepath.Join(root, path.Dir(name), string(destination))
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("%s: image %s: %w", name, destination, err)
	}
	return []byte((&url.URL{Path: filepath.ToSlash(file)}).String()), nil // with its scheme, goldmark would leave it out
}

// link leads to where the same stands in the report, or to the file in the repository.
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
	for _, page := range pages {
		if page != target {
			continue
		}
		return []byte("#" + prefix(page) + anchor)
	}
	if anchor != "" {
		target += "#" + anchor
	}
	return []byte(sources + target)
}

// anchors makes the ids of headings as GitHub does, each with a prefix.
type anchors struct {
	prefix string
	taken  map[string]int
}

func newAnchors(prefix string) *anchors { return &anchors{prefix, map[string]int{}} }

// Generate implements parser.IDs.
func (a *anchors) Generate(value []byte, _ ast.NodeKind) []byte {
	slug := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, strings.TrimSpace(string(value)))
	n := a.taken[slug]
	a.taken[slug]++
	if n > 0 {
		slug = fmt.Sprintf("%s-%d", slug, n)
	}
	return []byte(a.prefix + slug)
}

// Put implements parser.IDs.
func (a *anchors) Put([]byte) {}

// blocks renders code such that no line of it is wider than a page, and diagrams such that Mermaid finds them.
type blocks struct{}

// RegisterFuncs implements renderer.NodeRenderer.
func (b blocks) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	r.Register(ast.KindFencedCodeBlock, b.render)
	r.Register(ast.KindCodeBlock, b.render)
}

func (blocks) render(w util.BufWriter, source []byte, n ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		return ast.WalkContinue, nil
	}
	code := n.Lines().Value(source)
	if fenced, ok := n.(*ast.FencedCodeBlock); ok && string(fenced.Language(source)) == "mermaid" {
		_, err := fmt.Fprintf(w, "<figure><pre class=\"mermaid\">%s</pre></figure>\n", template.HTMLEscapeString(string(code)))
		return ast.WalkContinue, err
	}
	_, err := fmt.Fprintf(w, "<pre style=\"font-size: %.2fpt\"><code>%s</code></pre>\n", codeSize(string(code)), template.HTMLEscapeString(string(code)))
	return ast.WalkContinue, err
}

// codeSize is the size in points at which the longest line of a text has room; what would be too small to read is broken
// into several lines instead.
func codeSize(code string) float64 {
	const room, advance, most, least = 495, 0.61, 8, 5 // points; width of a character for its size
	longest := 1
	for line := range strings.Lines(code) {
		longest = max(longest, len([]rune(strings.TrimRight(line, "\n"))))
	}
	return math.Max(least, math.Min(most, room/(advance*float64(longest))))
}
