package monitoring

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Bounds of a download of some 200 MB: a network that lets nothing through is known in seconds.
const (
	answeredWithin = 10 * time.Second
	fetchedWithin  = 10 * time.Minute
)

// release is a gzipped tar archive with one folder, beside which its SHA-256 lies as url.sha256.
type release struct{ url string }

func officialRelease() release {
	return release{fmt.Sprintf("https://dl.grafana.com/oss/release/grafana-%s.%s-%s.tar.gz", GrafanaVersion, runtime.GOOS, runtime.GOARCH)}
}

// name is the archive's without .tar.gz.
func (r release) name() string { return strings.TrimSuffix(path.Base(r.url), ".tar.gz") }

// fetch unpacks the archive's folder to the path to, whole or not at all.
func (r release) fetch(ctx context.Context, to string, say func(format string, args ...any)) error {
	limited, cancel := context.WithTimeout(ctx, fetchedWithin)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: answeredWithin}).DialContext,
		TLSHandshakeTimeout: answeredWithin, ResponseHeaderTimeout: answeredWithin, DisableKeepAlives: true,
	}}
	sum, err := r.get(limited, client, r.url+".sha256")
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(sum, 1024))
	sum.Close()
	if err != nil {
		return fmt.Errorf("fetch %s.sha256: %w", r.url, err)
	}
	want, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if len(want) != 2*sha256.Size {
		return fmt.Errorf("fetch %s.sha256: %q is no SHA-256", r.url, want)
	}

	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(to), "fetching-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	say("fetching %s into %s\n", r.url, to)
	body, err := r.get(limited, client, r.url)
	if err != nil {
		return err
	}
	defer body.Close()
	hash := sha256.New()
	read := io.TeeReader(body, hash)
	top, err := unpack(read, tmp)
	if err == nil {
		_, err = io.Copy(io.Discard, read) // what follows the archive's end counts, too
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", r.url, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return fmt.Errorf("fetch %s: its SHA-256 is %s, not %s: try again", r.url, got, want)
	}
	return os.Rename(filepath.Join(tmp, top), to)
}

func (r release) get(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("fetch %s: %s", url, response.Status)
	}
	return response.Body, nil
}

// unpack writes an archive's folders, files and links below dir and returns the name of its one folder. Nothing in it
// reaches out of dir.
func unpack(r io.Reader, dir string) (top string, err error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	archive := tar.NewReader(unzipped)
	for {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		name := filepath.Clean(entry.Name)
		first, _, _ := strings.Cut(name, string(filepath.Separator))
		if top == "" {
			top = first
		}
		if first != top {
			return "", fmt.Errorf("the archive has %s beside %s", name, top)
		}
		switch entry.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(root, name, archive, entry.FileInfo().Mode().Perm())
		case tar.TypeSymlink:
			err = root.Symlink(entry.Linkname, name)
		}
		if err != nil {
			return "", err
		}
	}
	if top == "" {
		return "", errors.New("the archive is empty")
	}
	return top, nil
}

func unpackFile(root *os.Root, name string, r io.Reader, mode os.FileMode) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
