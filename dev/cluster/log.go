package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

// keepLogs is the size in bytes above which a node's log is put aside when the node starts again.
const keepLogs = 64 << 20

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > keepLogs {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

var (
	stackFrame = regexp.MustCompile(`^\s+(at |\.\.\. \d+ )`)
	errorLine  = regexp.MustCompile(`^(ERROR|Error|Exception|Unrecognized|Invalid|Could not|Conflicting)`)
	routine    = regexp.MustCompile(`^(INFO|WARN|DEBUG) `)
)

// complaint is what a node said of its end: its log from the first error on, without stack frames and what else went on
// meanwhile, or the last lines where no line looks like an error.
func complaint(path string, from int64) string {
	const most = 12
	text, err := readFrom(path, from)
	if err != nil {
		return err.Error()
	}
	var lines []string
	first := -1
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if stackFrame.MatchString(line) || strings.TrimSpace(line) == "" {
			continue
		}
		if first >= 0 && routine.MatchString(line) {
			continue
		}
		if first < 0 && errorLine.MatchString(line) {
			first = len(lines)
		}
		lines = append(lines, line)
	}
	lines = lines[max(0, first, len(lines)-most):]
	if len(lines) == 0 {
		return "(nothing)"
	}
	return strings.Join(lines, "\n")
}

// readFrom reads a log from an offset, but no more than its last MiB.
func readFrom(path string, from int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(from, info.Size()-1<<20), 1<<20))
}

func lastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

// Logs writes the last lines of a node's log to w. With follow it goes on with what is added, until ctx ends.
func (c *Cluster) Logs(ctx context.Context, w io.Writer, n, lines int, follow bool) error {
	node, err := c.Node(n)
	if err != nil {
		return err
	}
	f, err := os.Open(node.LogFile)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s has no log: it was never started", node)
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	text, err := readFrom(node.LogFile, 0)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if _, err := fmt.Fprintln(w, lastLines(text, lines)); err != nil || !follow {
		return err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for {
		if _, err := io.Copy(w, f); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return nil
		}
	}
}
