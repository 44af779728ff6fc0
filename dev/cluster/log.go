package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// keepLogs is the size in bytes above which a node's log is put aside when the node starts again.
const keepLogs = 64 << 20

var (
	stackFrame = regexp.MustCompile(`^\s+(at |\.\.\. \d+ )`)
	errorLine  = regexp.MustCompile(`^(ERROR|Error|Exception|Unrecognized|Invalid|Could not|Conflicting)`)
	routine    = regexp.MustCompile(`^(INFO|WARN|DEBUG) `)
)

// complaint is what a node said of its end: its log from the first error on, without stack frames and what else went on
// meanwhile, or the last lines where no line looks like an error.
func complaint(path string, from int64) string {
	const most = 12
	text, err := process.ReadLog(path, from)
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

// Logs writes the last lines of a node's log to w. With follow it goes on with what is added, until ctx ends.
func (c *Cluster) Logs(ctx context.Context, w io.Writer, n, lines int, follow bool) error {
	node, err := c.Node(n)
	if err != nil {
		return err
	}
	err = process.ShowLog(ctx, w, node.LogFile, lines, follow)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s has no log: it was never started", node)
	}
	return err
}
