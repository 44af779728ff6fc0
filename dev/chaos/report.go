package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// report prints the outcomes as tables in Markdown.
func report(w io.Writer, scenarios []*scenario) {
	table(w, "fault | outcome | lasted | alerts fired after | no response for | nothing stored for | recovered after | alerts resolved after | peak RSS", scenarios, func(s *scenario) string {
		outcome, _, _ := strings.Cut(s.outcome(), ":")
		if s.skipped != nil {
			return s.outcome() + " | | | | | | |"
		}
		fired, resolved := "–", "–"
		if s.detected > 0 {
			fired, resolved = seconds(s.detected), seconds(s.resolved)
		}
		return fmt.Sprintf("%s | %s | %s | %s | %s | %s | %s | %.0f MB", outcome, seconds(s.lasted), fired, seconds(s.ingest), seconds(s.storing),
			seconds(s.recovered), resolved, float64(s.peakRSS)/1e6)
	})
	injected := slices.DeleteFunc(slices.Clone(scenarios), func(s *scenario) bool { return s.skipped != nil })
	table(w, "fault | acknowledged | stored | missing | differing | never sent | requests sent again | verify: records | verify: differences", injected, func(s *scenario) string {
		return fmt.Sprintf("%d | %d | %d | %d | %d | %d | %d | %d", s.acknowledged, s.stored, s.missing, s.differing, s.unknown, s.resent, s.verified, s.differences)
	})
	fmt.Fprintln(w)
	for _, s := range scenarios {
		lines := []string{fmt.Sprintf("- **%s** (`%s`): %s", s.title, s.name, s.injects)}
		if len(s.alerts) > 0 {
			lines = append(lines, "Alerts: "+strings.Join(s.alerts, "; "))
		}
		lines = append(lines, s.notes...)
		if s.failed != nil {
			lines = append(lines, "Failed: "+strings.ReplaceAll(s.failed.Error(), "\n", "; "))
		}
		for i, line := range lines {
			lines[i] = strings.TrimSuffix(line, ".") + "."
		}
		fmt.Fprintln(w, strings.Join(lines, "\n  "))
	}
}

// table prints a table with a row for each scenario.
func table(w io.Writer, head string, scenarios []*scenario, row func(*scenario) string) {
	fmt.Fprintf(w, "\n| %s |\n%s|\n", head, strings.Repeat("|---", strings.Count(head, "|")+1))
	for _, s := range scenarios {
		fmt.Fprintf(w, "| %s | %s |\n", s.title, row(s))
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
