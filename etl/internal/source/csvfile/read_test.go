package csvfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleettracing/fleet-tracing/etl/internal/csvline"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

var _ pipeline.Source = (*Source)(nil)

const header = "device_id,fleet_id,timestamp,lat,lon"

func write(t testing.TB, name, content string) string {
	t.Helper()
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(t.TempDir(), name)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// lineOf is a line with five columns, the n-th of a file.
func lineOf(n int) string { return fmt.Sprintf("bus-%d,wuxi,%d,31.5,120.5", n%7, 1_800_000_000+n) }

// fileOf is a file with n lines behind the header.
func fileOf(n int) string { return fileFrom(0, n) }

// fileFrom is a file whose line n is lineOf(from+n).
func fileFrom(from, n int) string {
	var b strings.Builder
	b.WriteString(header + "\n")
	for i := range n {
		b.WriteString(lineOf(from+i+2) + "\n")
	}
	return b.String()
}

// read runs a source to its end and gives what it emitted.
func read(t testing.TB, o Options) (items []pipeline.Item, refused []pipeline.Rejected, err error) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		return nil, nil, err
	}
	err = s.Run(context.Background(), func(b pipeline.Batch) error {
		if n := len(b.Items) + len(b.Rejected); n == 0 || n > csvline.BlockLines {
			t.Errorf("a batch of %d lines", n)
		}
		if b.Origin == "" {
			t.Error("a batch without origin")
		}
		items = append(items, b.Items...)
		refused = append(refused, b.Rejected...)
		b.Done(pipeline.Outcome{Stored: len(b.Items)})
		return nil
	})
	return items, refused, err
}

// mustRead is read without an error.
func mustRead(t testing.TB, o Options) ([]pipeline.Item, []pipeline.Rejected) {
	t.Helper()
	items, refused, err := read(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return items, refused
}

// mentions wants an error whose message has all the parts.
func mentions(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that mentions %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q doesn't mention %q", err, part)
		}
	}
}

var errFull = errors.New("the pipeline is closed")
