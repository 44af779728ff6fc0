package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Markdown prints the outcomes of reports, files that Run's report was written to, as tables. Of a fault that is in several, the last
// counts.
func Markdown(w io.Writer, files ...string) error {
	last := map[string]Outcome{}
	var machines []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r Report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, o := range r.Outcomes {
			last[o.Fault] = o
		}
		if line := fmt.Sprintf("%s, seed %d", r.Machine, r.Seed); !strings.Contains(strings.Join(machines, "\n"), line) {
			machines = append(machines, line)
		}
	}
	fmt.Fprintf(w, "Measured on %s.\n\n", strings.Join(machines, "; "))
	fmt.Fprintln(w, "| fault | outcome | lasted | people heard after | no answer for | nothing stored for | all flowed after | over was told after | peak RSS |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, name := range Names() {
		o, found := last[name]
		if !found {
			continue
		}
		if o.Result == Skipped {
			fmt.Fprintf(w, "| %s | skipped: %s | | | | | | | |\n", o.Title, o.Why)
			continue
		}
		heard, over := "–", "–"
		if o.Detected > 0 {
			heard, over = seconds(o.Detected), seconds(o.Resolved)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %.0f MB |\n", o.Title, o.Result, seconds(o.Lasted), heard, seconds(o.Ingest), seconds(o.Storing),
			seconds(o.Recovered), over, float64(o.PeakRSS)/1e6)
	}
	fmt.Fprintln(w, "\n| fault | acknowledged | stored | missing | differing | never sent | requests sent again | verify: fixes | verify: differences |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, name := range Names() {
		if o, found := last[name]; found && o.Result != Skipped {
			fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %d | %d | %d |\n", o.Title, o.Acknowledged, o.Stored, o.Missing, o.Differing, o.Unknown, o.Resent, o.Fixes, o.Differences)
		}
	}
	fmt.Fprintln(w)
	for _, name := range Names() {
		o, found := last[name]
		if !found {
			continue
		}
		fmt.Fprintf(w, "- **%s** (`%s`): %s.", o.Title, o.Fault, o.Done)
		for _, line := range append([]string{alertLine(o)}, o.Notes...) {
			if line != "" {
				fmt.Fprintf(w, "\n  %s.", strings.TrimSuffix(line, "."))
			}
		}
		if o.Why != "" && o.Result == Failed {
			fmt.Fprintf(w, "\n  Failed: %s.", strings.ReplaceAll(o.Why, "\n", "; "))
		}
		fmt.Fprintln(w)
	}
	return nil
}

func alertLine(o Outcome) string {
	if len(o.Alerts) == 0 {
		return ""
	}
	return "People heard: " + strings.Join(o.Alerts, "; ")
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
