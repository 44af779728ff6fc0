package bench

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
)

// BuildComparison measures two builds of fleet-etl in one run, each in a keyspace of its own.
type BuildComparison struct {
	Old, New string // paths of the binaries
	Records  int    // of each made input
	Vehicles int
	Rounds   int
	Taxis    string // path of wuxi_taxis.csv; empty: without it
	Only     string // an input; empty: all
	Log      io.Writer
}

// comparedFleets is how many fleets the made inputs have.
const comparedFleets = 10

// WithoutDerivedRows turns off derived rows, by the setting of the older build and by that of the newer.
var WithoutDerivedRows = []string{"ETL_DERIVE=false", "ETL_PROCESSOR_ENABLED=false"}

// Run measures on these nodes.
func (c BuildComparison) Run(ctx context.Context, nodes Nodes) (results []Result, err error) {
	dir, err := os.MkdirTemp("", "fleet-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	realistic, random := within(dir, "realistic"), within(dir, "random")
	if err := (Simulation{Records: c.Records, Vehicles: c.Vehicles, Fleets: comparedFleets}).Write(ctx, c.New, realistic); err != nil {
		return nil, err
	}
	if err := writeRandom(random, c.Records, c.Vehicles, comparedFleets); err != nil {
		return nil, err
	}
	inputs := []struct {
		name string
		env  []string
		load []string
	}{
		{"realistic, without derived rows", WithoutDerivedRows, []string{realistic}},
		{"realistic, with derived rows", nil, []string{realistic}},
		{"random, without derived rows", WithoutDerivedRows, []string{random}},
		{"random, with derived rows", nil, []string{random}},
		{"taxis, with derived rows", nil, taxis(c.Taxis)},
	}
	if c.Taxis == "" {
		inputs = inputs[:len(inputs)-1]
	}
	keyspaces := map[string]*Keyspace{}
	defer func() {
		for _, k := range keyspaces {
			err = errors.Join(err, k.Drop(ctx))
		}
	}()
	var cases []Case
	for _, build := range []struct{ name, binary string }{{"old", c.Old}, {"new", c.New}} {
		k, err := nodes.MakeKeyspace(ctx, "bench_"+build.name, build.binary, dir)
		if err != nil {
			return nil, err
		}
		keyspaces[build.name] = k
	}
	for _, in := range inputs {
		if c.Only != "" && c.Only != in.name {
			continue
		}
		for _, build := range []string{"old", "new"} {
			k := keyspaces[build]
			cases = append(cases, Case{
				Input: in.name, Name: build, Base: "old", empty: k.Empty,
				command: func(ctx context.Context) *exec.Cmd {
					return k.Command(ctx, in.env, append([]string{"load", "--report", "json"}, in.load...)...)
				},
			})
		}
	}
	return runCases(ctx, nodes, cases, c.Rounds, c.Log)
}
