package queries

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Markdown writes the report as the tables of docs/queries.md.
func (r *Report) Markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("Measured %s: %d vehicles, of which %d send every %s and the rest every %s, over %d days, in one fleet.",
		r.Taken.Format("2006-01-02 15:04 MST"), r.Fleet.Vehicles, r.Fleet.Dense, short(r.Fleet.DenseEvery), short(r.Fleet.Every), r.Fleet.Days)
	line("\n### Statements")
	for _, of := range byTable(r.Statements) {
		line("\n**`%s`**, key `%s`\n", of[0].Table, of[0].Key)
		line("| statement | for | P50 ms | P95 ms | node ms | rows | tombstones | SSTables | sent |")
		line("|---|---|--:|--:|--:|--:|--:|--:|---|")
		for _, s := range of {
			sent := ""
			if s.Entries > 1 {
				sent = fmt.Sprintf("%d in %.1f KiB", s.Entries, float64(s.Bytes)/1024)
			}
			line("| `%s` | %s | %s | %s | %s | %d | %d | %d | %s |", s.Name, s.Purpose, ms(s.P50), ms(s.P95), ms(s.Server), s.Rows, s.Tombstones, s.SSTables, sent)
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
	line("%d different texts were sent for these; %d of them are now kept as prepared by the node.\n", r.Prepared.Statements, r.Prepared.Prepared)
	costs(&b, "statement and range", r.Panels)
	line("\n### Tables\n")
	line("| table | partitions | mean | largest | SSTables | on disk |")
	line("|---|--:|--:|--:|--:|--:|")
	for _, t := range r.Tables {
		line("| `%s` | %d | %s | %s | %d | %s |", t.Name, t.Partitions, size(t.MeanBytes), size(t.LargestBytes), t.SSTables, size(t.Bytes))
	}
	return b.String()
}

// byTable gathers the statements of each table, in the order in which the tables come first.
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
	fmt.Fprintf(b, "| %s | kind | requests | rows | tombstones | SSTables | first ms | P50 ms | P95 ms | beyond |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|\n", what)
	for _, c := range list {
		name := c.Name
		if strings.HasPrefix(name, "SELECT") {
			text, days, _ := strings.Cut(name, "; ")
			name = "`" + strings.ReplaceAll(text, "|", `\|`) + "` " + days
		}
		fmt.Fprintf(b, "| %s | %s | %d | %d | %d | %d | %s | %s | %s | %s |\n",
			name, c.Kind, c.Requests, c.Rows, c.Tombstones, c.SSTables, ms(c.First), ms(c.P50), ms(c.P95), c.Over)
	}
}

func ms(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func short(d fmt.Stringer) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
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

// The marks between which a document holds what was measured.
const (
	beginMark = "<!-- measured: make queries -->"
	endMark   = "<!-- end -->"
)

// Into writes the tables of the report into a document, in the place of those of the time before.
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
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644) //nolint:gosec // the page that the caller names
}
