package csvfile

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestExpand(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"data", "data/sub.csv", "empty"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data/b.csv", "data/a.csv", "data/c.csv.gz", "data/[1].csv"} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("data/a.csv", "link.csv"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", "data/broken.gz"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo("pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		patterns []string
		want     []string
		err      []string
	}{
		{name: "as given", patterns: []string{"data/b.csv", "data/a.csv", "-"}, want: []string{"data/b.csv", "data/a.csv", "-"}},
		{name: "a glob is sorted and has no directories", patterns: []string{"data/*.csv"}, want: []string{"data/[1].csv", "data/a.csv", "data/b.csv"}},
		{name: "once each", patterns: []string{"data/b.csv", "-", "data/[ab].csv", "./data/../data/b.csv", "link.csv", "-"}, want: []string{"data/b.csv", "-", "data/a.csv"}},
		{name: "a name that looks like a glob", patterns: []string{"data/[1].csv"}, want: []string{"data/[1].csv"}},
		{name: "nothing", err: []string{"no files", "data/*.csv"}},
		{name: "absent", patterns: []string{"data/x.csv"}, err: []string{"find file data/x.csv: it does not exist", "check the path"}},
		{name: "no match", patterns: []string{"data/*.txt"}, err: []string{"find file data/*.txt: no file matches", "check"}},
		{name: "only directories match", patterns: []string{"emp*"}, err: []string{"find file emp*: no file matches"}},
		{name: "bad pattern", patterns: []string{"data/[.csv"}, err: []string{"find file data/[.csv: syntax error in pattern", "bracket"}},
		{name: "directory", patterns: []string{"data"}, err: []string{"find file data: it is a directory", "'data/*.csv'"}},
		{name: "pipe", patterns: []string{"pipe"}, err: []string{"find file pipe: it is not a regular file", "use - as the file"}},
		{name: "broken link in a glob", patterns: []string{"data/*.gz"}, err: []string{"find file data/*.gz: match data/broken.gz: no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Expand(c.patterns)
			if c.err != nil {
				mentions(t, err, c.err...)
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	if _, err := New(Options{Files: []string{"data"}}); err == nil {
		t.Error("a directory was taken as a file")
	} else {
		mentions(t, err, "read file data: it is a directory", filepath.Join("data", "*.csv"))
	}
}
