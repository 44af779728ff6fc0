package queries

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Markdown shows the report as the tables of docs/queries.md.
func (r *Report) Markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("Measured %s: %d vehicles over %d days in one fleet. %d of them send every %s, the others every %s.",
		r.Taken.Format("2006-01-02 15:04 MST"), r.Fleet.Vehicles, r.Fleet.Days, denseVehicles, denseEvery, "hour")
	line("\n### Statements")
	for _, of := range byTable(r.Statements) {
		line("\n**`%s`**, key `%s`\n", of[0].Table, of[0].Key)
		line("| statement | for | P50 ms | P95 ms | node ms | rows | tombstones | SSTables | batch |")
		line("|---|---|--:|--:|--:|--:|--:|--:|--:|")
		for _, s := range of {
			line("| `%s` | %s | %s | %s | %s | %d | %d | %d | %d |", s.Name, s.Purpose, ms(s.P50), ms(s.P95), ms(s.Node), s.Rows, s.Tombstones, s.SSTables, s.Batch)
		}
		line("\n```sql")
		for _, s := range of {
			line("%s", s.CQL)
		}
		line("```")
	}
	line("\n### Calls\n")
	costs(&b, "call", r.Calls)
	line("\n### Panels\n")
	costs(&b, "statement and range", r.Panels)
	line("\n### Tables\n")
	line("| table | partitions | mean | largest | SSTables | on disk |")
	line("|---|--:|--:|--:|--:|--:|")
	for _, t := range r.Tables {
		onDisk, _ := strconv.Atoi(t.Bytes)
		line("| `%s` | %d | %s | %s | %d | %s |", t.Name, t.Partitions, size(t.MeanBytes), size(t.LargestBytes), t.SSTables, size(onDisk))
	}
	return b.String()
}

// byTable groups the statements by table, in their order.
func byTable(statements []StatementCost) [][]StatementCost {
	var groups [][]StatementCost
	for _, s := range statements {
		i := slices.IndexFunc(groups, func(g []StatementCost) bool { return g[0].Table == s.Table })
		if i < 0 {
			groups, i = append(groups, nil), len(groups)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

func costs(b *strings.Builder, what string, list []Cost) {
	fmt.Fprintf(b, "| %s | kind | rows | P50 ms | P95 ms | over budget |\n|---|---|--:|--:|--:|---|\n", what)
	for _, c := range list {
		name := c.Name
		if strings.HasPrefix(name, "SELECT") {
			text, days, _ := strings.Cut(name, "; ")
			name = "`" + strings.ReplaceAll(text, "|", `\|`) + "` " + days
		}
		fmt.Fprintf(b, "| %s | %s | %d | %s | %s | %s |\n", name, c.Kind, c.Rows, ms(c.P50), ms(c.P95), c.over())
	}
}

func ms(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func size(bytes int) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	case bytes >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d B", bytes)
}

// The measured tables of a document are between these marks.
const (
	beginMark = "<!-- measured: make queries -->"
	endMark   = "<!-- end -->"
)

// Into replaces the measured tables of a document.
func (r *Report) Into(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	from, to := slices.Index(lines, beginMark), slices.Index(lines, endMark)
	if from < 0 || to < from {
		return fmt.Errorf("%s: has no lines %q and %q for the tables", path, beginMark, endMark)
	}
	lines = slices.Concat(lines[:from+1], []string{strings.TrimRight(r.Markdown(), "\n")}, lines[to:])
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644) //nolint:gosec // the caller names the page
}
