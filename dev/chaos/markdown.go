package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Markdown prints the outcomes of JSON reports as tables. If several reports have a fault, the last one counts.
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
	var outcomes []Outcome
	for _, name := range Names() {
		if o, found := last[name]; found {
			outcomes = append(outcomes, o)
		}
	}
	fmt.Fprintf(w, "Measured on %s.\n\n", strings.Join(machines, "; "))
	fmt.Fprintln(w, "| fault | outcome | lasted | alerts fired after | no response for | nothing stored for | recovered after | alerts resolved after | peak RSS |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, o := range outcomes {
		fired, resolved := "–", "–"
		if o.Detected > 0 {
			fired, resolved = seconds(o.Detected), seconds(o.Resolved)
		}
		if o.Result == Skipped {
			fmt.Fprintf(w, "| %s | skipped: %s | | | | | | | |\n", o.Title, o.Why)
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %.0f MB |\n", o.Title, o.Result, seconds(o.Lasted), fired, seconds(o.Ingest), seconds(o.Storing),
			seconds(o.Recovered), resolved, float64(o.PeakRSS)/1e6)
	}
	fmt.Fprintln(w, "\n| fault | acknowledged | stored | missing | differing | never sent | requests sent again | verify: records | verify: differences |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, o := range outcomes {
		if o.Result != Skipped {
			fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %d | %d | %d |\n", o.Title, o.Acknowledged, o.Stored, o.Missing, o.Differing, o.Unknown, o.Resent, o.Verified, o.Differences)
		}
	}
	fmt.Fprintln(w)
	for _, o := range outcomes {
		fmt.Fprintf(w, "- **%s** (`%s`): %s.", o.Title, o.Fault, o.Done)
		lines := o.Notes
		if len(o.Alerts) > 0 {
			lines = append([]string{"Alerts: " + strings.Join(o.Alerts, "; ")}, lines...)
		}
		if o.Why != "" && o.Result == Failed {
			lines = append(lines, "Failed: "+strings.ReplaceAll(o.Why, "\n", "; "))
		}
		for _, line := range lines {
			fmt.Fprintf(w, "\n  %s.", strings.TrimSuffix(line, "."))
		}
		fmt.Fprintln(w)
	}
	return nil
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
