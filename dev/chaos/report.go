package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// report prints outcomes as tables in Markdown.
func report(w io.Writer, outcomes []Outcome) {
	table(w, "fault | outcome | lasted | alerts fired after | no response for | nothing stored for | recovered after | alerts resolved after | peak RSS", outcomes, func(o Outcome) string {
		fired, resolved := "–", "–"
		if o.Detected > 0 {
			fired, resolved = seconds(o.Detected), seconds(o.Resolved)
		}
		if o.Result == Skipped {
			return "skipped: " + o.Why + " | | | | | | |"
		}
		return fmt.Sprintf("%s | %s | %s | %s | %s | %s | %s | %.0f MB", o.Result, seconds(o.Lasted), fired, seconds(o.Ingest), seconds(o.Storing),
			seconds(o.Recovered), resolved, float64(o.PeakRSS)/1e6)
	})
	injected := slices.DeleteFunc(slices.Clone(outcomes), func(o Outcome) bool { return o.Result == Skipped })
	table(w, "fault | acknowledged | stored | missing | differing | never sent | requests sent again | verify: records | verify: differences", injected, func(o Outcome) string {
		return fmt.Sprintf("%d | %d | %d | %d | %d | %d | %d | %d", o.Acknowledged, o.Stored, o.Missing, o.Differing, o.Unknown, o.Resent, o.Verified, o.Differences)
	})
	fmt.Fprintln(w)
	for _, o := range outcomes {
		lines := []string{fmt.Sprintf("- **%s** (`%s`): %s", o.title, o.name, o.injects)}
		if len(o.Alerts) > 0 {
			lines = append(lines, "Alerts: "+strings.Join(o.Alerts, "; "))
		}
		lines = append(lines, o.Notes...)
		if o.Result == Failed {
			lines = append(lines, "Failed: "+strings.ReplaceAll(o.Why, "\n", "; "))
		}
		for i, line := range lines {
			lines[i] = strings.TrimSuffix(line, ".") + "."
		}
		fmt.Fprintln(w, strings.Join(lines, "\n  "))
	}
}

// table prints a table with a row for each outcome.
func table(w io.Writer, head string, outcomes []Outcome, row func(Outcome) string) {
	fmt.Fprintf(w, "\n| %s |\n%s|\n", head, strings.Repeat("|---", strings.Count(head, "|")+1))
	for _, o := range outcomes {
		fmt.Fprintf(w, "| %s | %s |\n", o.title, row(o))
	}
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
