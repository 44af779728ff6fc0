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

var (
	stackFrame = regexp.MustCompile(`^\s+(at |\.\.\. \d+ )`)
	errorLine  = regexp.MustCompile(`^(ERROR|Error|Exception|Unrecognized|Invalid|Could not|Conflicting)`)
	routine    = regexp.MustCompile(`^(INFO|WARN|DEBUG) `)
)

// firstError returns the log of a failed node from the first error on, without stack frames and routine messages, or the last lines
// if no line looks like an error.
func firstError(log []byte) string {
	const most = 12
	var lines []string
	first := -1
	for line := range strings.Lines(string(log)) {
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
		return "(the log is empty)"
	}
	return strings.Join(lines, "\n")
}

// Logs writes the last lines of the log of a node to w. With follow, it also writes new lines until ctx ends.
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
