package loadtest

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// WriteText writes sections for a terminal.
func WriteText(w io.Writer, sections []Section) error {
	for _, s := range sections {
		fmt.Fprintf(w, "\n%s\n", s.Title)
		for _, fact := range s.Facts {
			fmt.Fprintf(w, "%s\n", strings.NewReplacer("**", "", "`", "").Replace(fact))
		}
		for _, t := range s.Tables {
			fmt.Fprintf(w, "\n%s\n", t.Title)
			if err := writeAligned(w, append([][]string{t.Head}, t.Rows...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeAligned writes rows with the first column on the left and the others on the right.
func writeAligned(w io.Writer, rows [][]string) error {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := fmt.Sprintf("  %-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			line += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// Markdown is a section for the docs, its plots as images in a folder beside the page.
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
	}
	for _, p := range s.Plots {
		fmt.Fprintf(&b, "![%s](%s/%s.svg)\n", p.Title, images, p.Name)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// Place puts sections into a page, each between its own two marks, in place of what stands there. It gives the names
// of the sections that the page has no marks for.
func Place(page string, sections []Section, images string) (placed string, without []string) {
	for i := range sections {
		s := &sections[i]
		from, to := "<!-- figures: "+s.Name+" -->\n", "<!-- end of figures -->"
		before, rest, ok := strings.Cut(page, from)
		_, after, ended := strings.Cut(rest, to)
		if !ok || !ended {
			without = append(without, s.Name)
			continue
		}
		page = before + from + "\n" + s.Markdown(images) + "\n" + to + after
	}
	return page, without
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"plain": func(s string) string { return strings.NewReplacer("**", "", "`", "").Replace(s) },
}).Parse(pageText))

// WriteHTML writes sections as one page that needs nothing else.
func WriteHTML(w io.Writer, sections []Section) error {
	type drawn struct {
		Section
		Drawings []template.HTML
	}
	parts := make([]drawn, len(sections))
	for i, s := range sections {
		parts[i].Section = s
		for _, p := range s.Plots {
			svg, err := p.SVG()
			if err != nil {
				return err
			}
			_, svg, _ = strings.Cut(svg, "<svg")                                     // without the head of a file of its own
			parts[i].Drawings = append(parts[i].Drawings, template.HTML("<svg"+svg)) //nolint:gosec // drawn here
		}
	}
	return page.Execute(w, parts)
}

// WriteCSV writes the samples of a measurement.
func WriteCSV(w io.Writer, samples []Sample) error {
	out := csv.NewWriter(w)
	rows := [][]string{{
		"at_seconds", "records", "resident_bytes", "heap_bytes", "goroutines", "open_files", "write_p50_seconds", "write_p95_seconds", "write_p99_seconds",
		"due_to_readable_p50_seconds", "due_to_readable_p95_seconds", "due_to_readable_p99_seconds",
	}}
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	for _, s := range samples {
		rows = append(rows, []string{
			number(s.At), strconv.FormatInt(s.Records, 10), strconv.FormatInt(s.Resident, 10), strconv.FormatInt(s.Heap, 10), strconv.Itoa(s.Goroutines), strconv.Itoa(s.Files),
			number(s.Write.P50), number(s.Write.P95), number(s.Write.P99), number(s.Freshness.P50), number(s.Freshness.P95), number(s.Freshness.P99),
		})
	}
	return out.WriteAll(rows)
}
