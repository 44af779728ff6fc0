package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Markdown shows a section, with its plots as images from a folder beside the page. Without a folder it leaves them out.
func (s *Section) Markdown(images string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", s.Title)
	for _, fact := range s.Facts {
		fmt.Fprintf(&b, "%s\n\n", fact)
	}
	for _, t := range s.Tables {
		if t.Title != "" {
			fmt.Fprintf(&b, "%s:\n\n", t.Title)
		}
		fmt.Fprintf(&b, "| %s |\n|---|%s\n", strings.Join(t.Head, " | "), strings.Repeat("---:|", len(t.Head)-1))
		for _, row := range t.Rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		b.WriteString("\n")
		if t.Plot != nil && images != "" {
			fmt.Fprintf(&b, "![%s](%s/%s.svg)\n\n", t.Plot.Title, images, t.Plot.Name)
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

const (
	beginMark = "<!-- results: %s -->\n"
	endMark   = "<!-- end of results -->"
)

// WriteInto puts sections into a page, each between its own two marks, and draws their plots into a folder beside the
// page. It returns the names of the sections that the page has no marks for.
func WriteInto(page string, sections []Section, images string) (without []string, err error) {
	content, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(filepath.Dir(page), images)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	text := string(content)
	for i := range sections {
		s := &sections[i]
		begin := fmt.Sprintf(beginMark, s.Name)
		before, rest, ok := strings.Cut(text, begin)
		_, after, ended := strings.Cut(rest, endMark)
		if !ok || !ended {
			without = append(without, s.Name)
			continue
		}
		text = before + begin + "\n" + s.Markdown(images) + "\n" + endMark + after
		for _, t := range s.Tables {
			if t.Plot == nil {
				continue
			}
			svg, err := t.Plot.svg()
			if err != nil {
				return without, err
			}
			if err := os.WriteFile(filepath.Join(folder, t.Plot.Name+".svg"), svg, 0o644); err != nil {
				return without, err
			}
		}
	}
	return without, os.WriteFile(page, []byte(text), 0o644) //nolint:gosec // the caller names the page
}
