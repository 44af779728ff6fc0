package process

import (
	"os"
	"regexp"
	"strings"
)

// Tail returns the last 40 lines of a log, or the error of reading it, for a message.
func Tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "read log: " + err.Error()
	}
	return LastLines(text, 40)
}

// routine matches routine messages of Cassandra and Kafka, stack frames and empty lines.
var routine = regexp.MustCompile(`^(\[[^]]*\] )?(INFO|WARN|DEBUG) |^\s+(at |\.\.\. \d+ )|^\s*$`)

// excerpt returns the last lines of a log without routine messages and stack frames, or its last lines if all are routine.
func excerpt(log []byte) string {
	var lines strings.Builder
	for line := range strings.Lines(string(log)) {
		if !routine.MatchString(line) {
			lines.WriteString(line)
		}
	}
	switch {
	case len(log) == 0:
		return "(the log is empty)"
	case lines.Len() == 0:
		return LastLines(log, 12)
	}
	return LastLines([]byte(lines.String()), 12)
}

// LastLines returns the last n lines of a text.
func LastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Indent indents the output of another program in a message.
func Indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }
