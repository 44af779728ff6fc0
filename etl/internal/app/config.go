package app

import (
	"cmp"
	"fmt"
	"text/tabwriter"
)

type configCommand struct {
	JSON bool `name:"json" help:"Print as JSON."`
}

// Run implements the command.
func (c configCommand) Run(p *program) error {
	settings := p.config.Settings()
	if c.JSON {
		return printJSON(p.Out, settings)
	}
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VARIABLE\tVALUE\tDEFAULT\tDESCRIPTION")
	for _, s := range settings {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Variable, cmp.Or(s.Value, "-"), cmp.Or(s.Default, "-"), s.Description)
	}
	return w.Flush()
}
