// Package table shows what a bench measured: as text for a terminal, as Markdown with plots for the docs, and as JSON.
package table

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Section is one report. The docs show it between two marks.
type Section struct {
	Name   string   `json:"name"` // of its place in the page
	Title  string   `json:"title"`
	Facts  []string `json:"facts"`
	Tables []*Table `json:"tables"`
}

// Table has a number or a text in each cell.
type Table struct {
	Title string   `json:"title,omitempty"`
	Head  []string `json:"head"`
	Rows  [][]any  `json:"rows"`
	Code  []string `json:"code,omitempty"` // CQL statements, shown below the rows
	Plot  *Plot    `json:"plot,omitempty"` // nil: none
}

// Add adds a row.
func (t *Table) Add(cells ...any) { t.Rows = append(t.Rows, cells) }

// Text shows the section with aligned columns.
func (s *Section) Text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	s.write(w, "\t", "")
	return w.Flush()
}

// Markdown shows the section, with its plots as images from a folder beside the page.
func (s *Section) Markdown(images string) string {
	var b strings.Builder
	s.write(&b, " ", images)
	return strings.TrimSpace(b.String()) + "\n"
}

// write ends each cell with end. It leaves out plots if images is empty.
func (s *Section) write(w io.Writer, end, images string) {
	if s.Title != "" {
		fmt.Fprintf(w, "### %s\n\n", s.Title)
	}
	for _, fact := range s.Facts {
		fmt.Fprintf(w, "%s\n\n", fact)
	}
	for _, t := range s.Tables {
		if t.Title != "" {
			fmt.Fprintf(w, "%s:\n\n", t.Title)
		}
		if images == "" || t.Plot == nil || !t.Plot.Only {
			t.write(w, end)
		}
		if images != "" && t.Plot != nil {
			fmt.Fprintf(w, "![%s](%s/%s.svg)\n\n", t.Title, images, t.Plot.Name)
		}
	}
}

// write leaves the first column on the left, and puts the others on the right.
func (t *Table) write(w io.Writer, end string) {
	line := func(cells []string) { fmt.Fprintf(w, "| %s%s|\n", strings.Join(cells, end+"| "), end) }
	line(t.Head)
	rule := slices.Repeat([]string{"---:"}, len(t.Head))
	rule[0] = "---"
	line(rule)
	for _, row := range t.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.ReplaceAll(text(cell), "|", `\|`)
		}
		line(cells)
	}
	fmt.Fprintln(w)
	if len(t.Code) > 0 {
		fmt.Fprintf(w, "```sql\n%s\n```\n\n", strings.Join(t.Code, "\n"))
	}
}

// text shows three digits of a number, or all before its point.
func text(cell any) string {
	n, ok := cell.(float64)
	switch {
	case !ok:
		return fmt.Sprint(cell)
	case math.Abs(n) >= 100:
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	return strconv.FormatFloat(n, 'g', 3, 64)
}

const endMark = "<!-- end of results -->"

// WriteInto puts sections into a page, each between its own two marks, and draws their plots into a folder beside the
// page. It leaves out sections that the page has no marks for.
func WriteInto(page string, sections []Section, images string) error {
	content, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, folder := string(content), filepath.Join(filepath.Dir(page), images)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i := range sections {
		s := &sections[i]
		begin := fmt.Sprintf("<!-- results: %s -->\n", s.Name)
		before, rest, ok := strings.Cut(text, begin)
		_, after, ended := strings.Cut(rest, endMark)
		if !ok || !ended {
			continue
		}
		text = before + begin + "\n" + s.Markdown(images) + "\n" + endMark + after
		for _, t := range s.Tables {
			if t.Plot == nil {
				continue
			}
			svg, err := t.svg()
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(folder, t.Plot.Name+".svg"), svg, 0o644); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(page, []byte(text), 0o644)
}
