package report

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// What draws the diagrams; it is one file that needs no other.
const (
	mermaidPackage = "mermaid@11.12.0"
	mermaidFile    = "package/dist/mermaid.min.js"
	mermaidSHA256  = "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b"
)

// fetchMermaid gives the path of Mermaid, which npm fetches the first time.
func fetchMermaid(ctx context.Context, work string) (string, error) {
	path := filepath.Join(work, mermaidPackage+".js")
	if script, err := os.ReadFile(path); err == nil && checkMermaid(script) == nil {
		return path, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("find npm, which fetches " + mermaidPackage + ": it is not in PATH: install it, such as by apt-get install npm")
	}
	folder, err := os.MkdirTemp(work, "npm")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", mermaidPackage)
	cmd.Dir, cmd.Stderr = folder, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("npm pack %s: %w", mermaidPackage, err)
	}
	packed, err := filepath.Glob(filepath.Join(folder, "*.tgz"))
	if err != nil || len(packed) != 1 {
		return "", fmt.Errorf("npm pack %s: it left %q", mermaidPackage, packed)
	}
	script, err := unpack(packed[0])
	if err == nil {
		err = checkMermaid(script)
	}
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", mermaidPackage, err)
	}
	return path, os.WriteFile(path, script, 0o644)
}

func checkMermaid(script []byte) error {
	sum := sha256.Sum256(script)
	if got := hex.EncodeToString(sum[:]); got != mermaidSHA256 {
		return fmt.Errorf("%s has SHA-256 %s, not %s", mermaidFile, got, mermaidSHA256)
	}
	return nil
}

func unpack(path string) ([]byte, error) {
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(unpacked)
	for {
		header, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", mermaidFile, err)
		}
		if header.Name == mermaidFile {
			return io.ReadAll(files)
		}
	}
}
