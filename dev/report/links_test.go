package report

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

const root = "../.."

// parsed is a page with the anchors that GitHub gives it.
type parsed struct {
	source   []byte
	tree     ast.Node
	anchors  map[string]bool
	headings map[string]bool // of levels 1 and 2
}

func parse(source []byte) parsed {
	p := parsed{source: source, anchors: map[string]bool{}, headings: map[string]bool{}}
	p.tree = newMarkdown().Parser().Parse(text.NewReader(source))
	_ = ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if h, ok := n.(*ast.Heading); ok && entering {
			id, _ := h.AttributeString("id")
			p.anchors[string(id.([]byte))] = true
			if h.Level <= 2 {
				p.headings[strings.ReplaceAll(string(h.Lines().Value(source)), "`", "")] = true
			}
		}
		return ast.WalkContinue, nil
	})
	return p
}

// documentation is every page, by its path from the root.
func documentation(t *testing.T) map[string]parsed {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/runbooks/*.md", "grafana-datasource/*.md", "grafana-datasource/src/*.md", "prometheus/alertmanager/secrets/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		names = append(names, found...)
	}
	pages := map[string]parsed{}
	for _, name := range names {
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		relative, err := filepath.Rel(root, name)
		require.NoError(t, err)
		pages[filepath.ToSlash(relative)] = parse(source)
	}
	require.Contains(t, pages, "README.md")
	require.Contains(t, pages, "docs/architecture.md")
	return pages
}

func TestDocumentationHasNoBrokenLinks(t *testing.T) {
	pages := documentation(t)
	for name, page := range pages {
		for _, problem := range brokenLinks(name, page, pages) {
			t.Error(problem)
		}
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	page := parse([]byte("# A page\n[x](none.md) ![x](none.png) [x](#none) [x](#a-page) [x](b.md#two-1) [x](b.md#two-2) [x](https://a.b/c) <a@b.c>"))
	other := parse([]byte("## Two\n## `Two`\n"))
	broken := brokenLinks("docs/a.md", page, map[string]parsed{"docs/a.md": page, "docs/b.md": other})
	require.Len(t, broken, 4, broken)
}

func brokenLinks(name string, page parsed, pages map[string]parsed) (broken []string) {
	_ = ast.Walk(page.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		destination := ""
		switch n := n.(type) {
		case *ast.Link:
			destination = string(n.Destination)
		case *ast.Image:
			destination = string(n.Destination)
		}
		if !entering || destination == "" || strings.Contains(destination, "://") || strings.HasPrefix(destination, "mailto:") {
			return ast.WalkContinue, nil
		}
		file, anchor, _ := strings.Cut(destination, "#")
		target := name
		if file != "" {
			file, _ = url.PathUnescape(file)
			target = path.Join(path.Dir(name), file)
		}
		_, known := pages[target]
		if !known {
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				broken = append(broken, fmt.Sprintf("%s: link %s: there is no %s", name, destination, target))
				return ast.WalkContinue, nil
			}
		}
		if known && anchor != "" && !pages[target].anchors[anchor] {
			broken = append(broken, fmt.Sprintf("%s: link %s: %s has no such heading", name, destination, target))
		}
		return ast.WalkContinue, nil
	})
	return broken
}

// diagramKinds lists the diagrams that both GitHub and the report draw.
var diagramKinds = []string{"flowchart", "sequenceDiagram", "stateDiagram-v2", "erDiagram", "gantt", "timeline", "pie", "xychart-beta"}

var frontMatter = regexp.MustCompile(`(?s)\A---\n.*?\n---\n`)

func TestDiagramsHaveAKnownKind(t *testing.T) {
	found := 0
	for name, page := range documentation(t) {
		_ = ast.Walk(page.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			block, ok := n.(*ast.FencedCodeBlock)
			if !ok || !entering || string(block.Language(page.source)) != "mermaid" {
				return ast.WalkContinue, nil
			}
			found++
			code := strings.TrimSpace(frontMatter.ReplaceAllString(string(block.Lines().Value(page.source)), ""))
			kind, rest, _ := strings.Cut(code, "\n")
			kind, _, _ = strings.Cut(kind, " ")
			if !slices.Contains(diagramKinds, kind) || strings.TrimSpace(rest) == "" {
				t.Errorf("%s: a diagram begins with %q: want one of %s, and what it shows", name, kind, strings.Join(diagramKinds, ", "))
			}
			return ast.WalkContinue, nil
		})
	}
	require.Positive(t, found)
}

func TestReportHasEveryHeading(t *testing.T) {
	if _, err := findChromium(); err != nil {
		testenv.Missing(t, testenv.Chromium, err.Error())
	}
	reader := testenv.Program(t, testenv.Tools, "poppler-utils", "pdftotext")
	absolute, err := filepath.Abs(root)
	require.NoError(t, err)
	out := filepath.Join(t.TempDir(), "report.pdf")
	require.NoError(t, Render(t.Context(), absolute, []string{"docs/architecture.md"}, out))
	words, err := exec.CommandContext(t.Context(), reader, out, "-").Output()
	require.NoError(t, err)
	for heading := range documentation(t)["docs/architecture.md"].headings {
		require.Equal(t, 1, strings.Count(string(words), heading+"\n"), heading)
	}
	require.Contains(t, string(words), "telemetry_by_device_day", "of a diagram")
}

func TestRenderNamesMissingPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Render(t.Context(), root, Pages, "")
	require.ErrorContains(t, err, "apt-get install chromium")
	t.Setenv("CHROMIUM", "/bin/false")
	err = Render(t.Context(), t.TempDir(), Pages, "")
	require.ErrorContains(t, err, "docs/performance.md is missing")
}

func TestLinksBetweenPagesStayInTheReport(t *testing.T) {
	for destination, want := range map[string]string{
		"performance.md#what-is-derived": "#performance-what-is-derived",
		"#decisions":                     "#architecture-decisions",
		"store.md#rules":                 sources + "docs/store.md#rules",
		"https://example.org/x":          "https://example.org/x",
	} {
		require.Equal(t, want, string(link("docs/architecture.md", []byte(destination), Pages)))
	}
}
