package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"text/tabwriter"
)

// Case is one way to store one input. Its cost is shown relative to the case that it names as its base.
type Case struct {
	Input string
	Name  string
	Base  string // name of a case of the same input; the case itself where it is the base

	empty   func(context.Context) error
	command func(context.Context) *exec.Cmd
}

// Result is the median of the runs of a case.
type Result struct {
	Cluster string `json:"cluster"`
	Input   string `json:"input"`
	Case    string `json:"case"`
	Base    string `json:"base"`
	Runs    int    `json:"runs"`
	Usage
}

// runCases measures every case once per round, each time on empty tables. Every second round runs the cases backwards, so
// that a drift of the machine affects all cases alike. A first round does not count: the nodes compile their code in it.
func runCases(ctx context.Context, nodes Nodes, cases []Case, rounds int, log io.Writer) ([]Result, error) {
	runs := make([][]Usage, len(cases))
	for round := range rounds + 1 {
		for i := range cases {
			if round%2 == 1 {
				i = len(cases) - 1 - i
			}
			c := &cases[i]
			if err := c.empty(ctx); err != nil {
				return nil, err
			}
			u, err := Measure(c.command(ctx), nodes)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", c.Input, c.Name, err)
			}
			if round == 0 {
				fmt.Fprintf(log, "warm-up: %s, %s: %.0f records/s\n", c.Input, c.Name, u.PerSecond)
				continue
			}
			fmt.Fprintf(log, "run %d of %d: %s, %s: %.0f records/s\n", round, rounds, c.Input, c.Name, u.PerSecond)
			runs[i] = append(runs[i], u)
		}
	}
	results := make([]Result, len(cases))
	for i, c := range cases {
		results[i] = Result{Cluster: nodes.DCs, Input: c.Input, Case: c.Name, Base: c.Base, Runs: rounds, Usage: medians(runs[i])}
	}
	return results, nil
}

// medians takes the median of each number on its own.
func medians(runs []Usage) Usage {
	return Usage{
		Records:    median(runs, func(u Usage) int64 { return u.Records }),
		Seconds:    median(runs, func(u Usage) float64 { return u.Seconds }),
		PerSecond:  median(runs, func(u Usage) float64 { return u.PerSecond }),
		ClientCPU:  median(runs, func(u Usage) float64 { return u.ClientCPU }),
		NodesCPU:   median(runs, func(u Usage) float64 { return u.NodesCPU }),
		PeakMemory: median(runs, func(u Usage) int64 { return u.PeakMemory }),
		Writes:     median(runs, func(u Usage) int64 { return u.Writes }),
	}
}

func median[T cmp.Ordered](runs []Usage, of func(Usage) T) T {
	values := make([]T, len(runs))
	for i, u := range runs {
		values[i] = of(u)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// WriteTable shows results as text. A number after × is relative to the base of the case.
func WriteTable(out io.Writer, results []Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "cluster\tinput\tcase\trecords\trecords/s\t×\tclient CPU µs/record\t×\tnodes' CPU µs/record\t×\twrites/record\tpeak MB\tbase\t")
	for _, r := range results {
		base := r
		if i := slices.IndexFunc(results, func(b Result) bool { return b.Cluster == r.Cluster && b.Input == r.Input && b.Case == r.Base }); i >= 0 {
			base = results[i]
		}
		client, clientBase := r.PerRecord(r.ClientCPU), base.PerRecord(base.ClientCPU)
		nodes, nodesBase := r.PerRecord(r.NodesCPU), base.PerRecord(base.NodesCPU)
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.0f\t%.2f\t%.1f\t%.2f\t%.1f\t%.2f\t%.2f\t%.0f\t%s\t\n", r.Cluster, r.Input, r.Case, r.Records,
			r.PerSecond, r.PerSecond/base.PerSecond, client, client/clientBase, nodes, nodes/nodesBase,
			float64(r.Writes)/float64(r.Records), float64(r.PeakMemory)/1e6, r.Base)
	}
	return w.Flush()
}
