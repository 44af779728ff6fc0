package csvfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// Expand returns the files of the patterns in their order, each once. Patterns are paths, globs in the syntax of
// path/filepath, and Stdin. The matches of a glob are sorted, without directories. An error names the pattern: no such
// file, no match, a directory, or not a regular file.
func Expand(patterns []string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	for _, pattern := range patterns {
		matches, err := match(pattern)
		if err != nil {
			return nil, fmt.Errorf("find file %s: %w", pattern, err)
		}
		for _, path := range matches {
			id, err := identity(path)
			if err != nil {
				return nil, fmt.Errorf("find file %s: %w", path, err)
			}
			if !seen[id] {
				seen[id] = true
				files = append(files, path)
			}
		}
	}
	if len(files) == 0 {
		return nil, errors.New("no files: give CSV files, a pattern such as 'data/*.csv', or - for standard input")
	}
	return files, nil
}

// match returns the files of one pattern. A file whose name looks like a pattern is found by its name.
func match(pattern string) ([]string, error) {
	if pattern == Stdin {
		return []string{Stdin}, nil
	}
	info, err := os.Stat(pattern)
	switch {
	case err == nil:
		return []string{pattern}, checkRegular(info, pattern)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, cause(err)
	case !strings.ContainsAny(pattern, `*?[`):
		return nil, errors.New("it does not exist: check the path")
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%w: close the bracket, or put a backslash before it", err)
	}
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("match %s: %w", path, cause(err))
		}
		if info.IsDir() {
			continue
		}
		if err := checkRegular(info, path); err != nil {
			return nil, fmt.Errorf("match %s: %w", path, err)
		}
		files = append(files, path)
	}
	if len(files) == 0 {
		return nil, errors.New("no file matches the pattern: check it and the working directory")
	}
	return files, nil
}

// checkRegular rejects files that can't be read twice: headers are read before the first record, and a load that resumes
// reads from the middle of a file.
func checkRegular(info fs.FileInfo, path string) error {
	switch {
	case info.Mode().IsRegular():
		return nil
	case info.IsDir():
		return fmt.Errorf("it is a directory: give the files in it, for example '%s'", filepath.Join(path, "*.csv"))
	default:
		return errors.New("it is not a regular file: pipe its contents in, and use - as the file")
	}
}

// openRegular opens a file that checkRegular accepts. Its errors lack the path.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = checkRegular(info, path)
	}
	if err != nil {
		return nil, nil, cause(err)
	}
	f, err := os.Open(path)
	return f, info, cause(err)
}

// identity returns the same text for every path to a file.
func identity(path string) (string, error) {
	if path == Stdin {
		return Stdin, nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", cause(err)
	}
	return filepath.Abs(real)
}

// cause returns the system's error without the path and the call, which the caller's message already has.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
