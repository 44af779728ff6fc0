package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// openLog opens a log for appending. It renames a log of more than keep bytes first.
func openLog(path string, keep int64) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > keep {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// ReadLog reads a log from an offset, at most its last MiB.
func ReadLog(path string, from int64) ([]byte, error) {
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

// LastLines returns the last n lines of a text.
func LastLines(text []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Indent indents the output of another program in a message.
func Indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

// ShowLog writes the last lines of a log to w. With follow, it also writes new lines until ctx ends. The error is os.ErrNotExist if
// there is no log.
func ShowLog(ctx context.Context, w io.Writer, path string, lines int, follow bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	text, err := ReadLog(path, 0)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if _, err := fmt.Fprintln(w, LastLines(text, lines)); err != nil || !follow {
		return err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for {
		if _, err := io.Copy(w, f); err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
		if Sleep(ctx, 4*PollEvery) != nil {
			return nil
		}
	}
}
