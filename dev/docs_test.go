package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var (
	makeCommand = regexp.MustCompile("(?m)(?:`|^(?:\\s|\\$ |[A-Z_]+=\\S+ )*)make ([a-z][a-z-]*)")
	devCommand  = regexp.MustCompile(`go run \./dev ([a-z][a-z-]*)(?: ([a-z]+))?`)
	testName    = regexp.MustCompile(`\bTest[A-Z][A-Za-z]+`)
	setting     = regexp.MustCompile(`"((?:ETL|KAFKA|MQTT|REDIS)_[A-Z_]+)=`)
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// Every command that the documentation names is there.
func TestCommandsOfTheDocumentation(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range makeTarget.FindAllSubmatch(makefile, -1) {
		targets = append(targets, string(m[1]))
	}
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	pages := []string{"../Makefile"}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/runbooks/*.md", "../grafana-datasource/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	made, run := 0, 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range makeCommand.FindAllSubmatch(text, -1) {
			if made++; !slices.Contains(targets, string(m[1])) {
				t.Errorf("%s: make %s: the Makefile has no such target", page, m[1])
			}
		}
		for _, m := range devCommand.FindAllSubmatch(text, -1) {
			if run++; !has(parser.Model.Node, string(m[1]), string(m[2])) {
				t.Errorf("%s: %s: there is no such command", page, m[0])
			}
		}
	}
	if made < 10 || run < 10 {
		t.Errorf("only %d and %d commands were found", made, run)
	}
}

// A pattern of go test -run that matches no test passes without testing anything.
func TestMakefileNamesExistingTests(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	for _, folder := range []string{"../etl", "../grafana-datasource/pkg"} {
		err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, "_test.go") {
				var text []byte
				text, err = os.ReadFile(path)
				tests = append(tests, text...)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	names := testName.FindAllString(string(makefile), -1)
	if len(names) < 4 {
		t.Errorf("only %d names of tests were found", len(names))
	}
	for _, name := range names {
		if !bytes.Contains(tests, []byte("func "+name)) {
			t.Errorf("Makefile: no test begins with %s", name)
		}
	}
}

// fleet-etl ignores variables that it does not know: a setting that was renamed would have no effect.
func TestSettingsOfFleetETLExist(t *testing.T) {
	config, err := os.ReadFile("../etl/internal/config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, pattern := range []string{"*.go", "*/*.go", "*/*/*.go", "../grafana/*.go", "../prometheus/*.go", "../etl/*_test.go", "../grafana-datasource/pkg/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range setting.FindAllSubmatch(text, -1) {
				if string(m[1]) == "KAFKA_TEST_BROKERS" { // of tests
					continue
				}
				if found++; !bytes.Contains(config, append(append([]byte(`"`), m[1]...), '"')) {
					t.Errorf("%s: fleet-etl has no setting %s", file, m[1])
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d settings were found", found)
	}
}

// has reports whether a command has the subcommand name, and whether that has the subcommand next, unless next is empty.
func has(n *kong.Node, name, next string) bool {
	for _, child := range n.Children {
		if child.Name == name {
			return len(child.Children) == 0 || next == "" || has(child, next, "")
		}
	}
	return false
}
