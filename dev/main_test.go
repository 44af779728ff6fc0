package main

import (
	"testing"

	"github.com/alecthomas/kong"
)

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{
		{"cluster", "up", "--dcs", "dc1=2,dc2=2", "--heap", "512"},
		{"cluster", "--dir", "/tmp/x", "--first-address", "127.0.0.21", "status", "fleet_iot"},
		{"cluster", "start", "1", "--jmx-port", "17201"},
		{"cluster", "stop", "1"},
		{"cluster", "kill", "1"},
		{"cluster", "down", "--delete"},
		{"demo", "--dcs", "dc1=1", "--metrics-port", "17070"},
		{"down"},
	} {
		var c cli
		parser, err := kong.New(&c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(args); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}
