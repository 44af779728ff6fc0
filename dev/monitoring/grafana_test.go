package monitoring

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

// home creates the home directory of a Grafana with its program at path.
func home(t *testing.T, dir, path string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "public"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "conf"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "conf", "defaults.ini"), nil, 0o644))
	if path != "" {
		program(t, dir, path, "")
	}
	return dir
}

func TestGrafanaIsFound(t *testing.T) {
	dir := home(t, t.TempDir(), "bin/grafana")
	want := filepath.Join(dir, "bin", "grafana")
	p, err := findGrafana(t.Context(), dir, "/nowhere", release{}, "", nil)
	require.NoError(t, err)
	assert.Equal(t, want, p)
	p, err = findGrafana(t.Context(), "", dir, release{}, "", nil)
	require.NoError(t, err)
	assert.Equal(t, want, p, "as the system's")
}

func TestBadGrafanaHomeIsReported(t *testing.T) {
	system := home(t, t.TempDir(), "bin/grafana")
	for name, tc := range map[string]struct{ dir, want string }{
		"no such folder": {filepath.Join(system, "none"), "there is no "},
		"another folder": {t.TempDir(), "has no conf/defaults.ini"},
		"not built":      {home(t, t.TempDir(), ""), "has no bin/grafana"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := findGrafana(t.Context(), tc.dir, system, release{}, "", nil)
			require.ErrorContains(t, err, "is not installed", "GRAFANA_HOME is not ignored")
			assert.ErrorContains(t, err, "GRAFANA_HOME")
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

// archive returns a gzipped tar archive with the files.
func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range names {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: 2, Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte("#!"))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

// site serves an archive and its SHA-256.
func site(t *testing.T, body []byte, sum string) release {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/grafana-1.tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	mux.HandleFunc("/grafana-1.tar.gz.sha256", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(sum)) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return release{server.URL + "/grafana-1.tar.gz"}
}

func sumOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

var whole = []string{"grafana-v1/conf/defaults.ini", "grafana-v1/public/index.html", "grafana-v1/bin/grafana"}

func TestReleaseIsDownloadedOnce(t *testing.T) {
	body := archive(t, whole...)
	r := site(t, body, sumOf(body)+"\n")
	cache := filepath.Join(t.TempDir(), "cache")
	said := 0
	for range 2 {
		p, err := findGrafana(t.Context(), "", "/nowhere", r, cache, func(string, ...any) { said++ })
		require.NoError(t, err)
		assert.Equal(t, filepath.Join(cache, "grafana-1", "bin", "grafana"), p)
	}
	assert.Equal(t, 1, said)
	entries, err := os.ReadDir(cache)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no partial download is left")
}

func TestUnavailableReleaseIsReported(t *testing.T) {
	good := archive(t, whole...)
	out := archive(t, "../escaped")
	for name, tc := range map[string]struct {
		release release
		want    string
	}{
		"other contents":  {site(t, good, sumOf(out)), "its SHA-256 is " + sumOf(good)},
		"cut short":       {site(t, good[:len(good)/2], sumOf(good)), "its SHA-256 is"},
		"damaged":         {site(t, good[:len(good)/2], sumOf(good[:len(good)/2])), "extract http"},
		"no sum":          {site(t, good, "<html>"), `"<html>" is not a SHA-256`},
		"out of its dir":  {site(t, out, sumOf(out)), "contains '..'"},
		"nothing there":   {release{site(t, good, "").url + ".none"}, "404 Not Found"},
		"no server":       {release{"http://127.0.0.1:1/grafana-1.tar.gz"}, "connection refused"},
		"no such machine": {release{"http://grafana.invalid/grafana-1.tar.gz"}, "grafana.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			cache := filepath.Join(parent, "cache")
			_, err := findGrafana(t.Context(), "", "/nowhere", tc.release, cache, func(string, ...any) {})
			require.ErrorContains(t, err, "is not installed")
			for _, part := range []string{tc.want, "GRAFANA_HOME is not set", "there is no /nowhere", "set GRAFANA_HOME to its directory"} {
				assert.ErrorContains(t, err, part)
			}
			entries, _ := os.ReadDir(cache)
			assert.Empty(t, entries)
			assert.NoFileExists(t, filepath.Join(parent, "escaped"))
		})
	}
}

func TestDownloadEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := findGrafana(ctx, "", "/nowhere", release{server.URL + "/grafana-1.tar.gz"}, t.TempDir(), func(string, ...any) {})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestGrafanaConfiguration(t *testing.T) {
	root := t.TempDir()
	o := GrafanaOptions{Options: Options{Root: root, Dir: t.TempDir(), Address: "127.0.0.1:13000"}, Cassandra: []string{"127.0.0.1:9042", "127.0.0.2:9042"},
		DC: "dc1", PrometheusURL: "http://127.0.0.1:9090"}
	require.NoError(t, o.configure())
	password, err := os.ReadFile(PasswordFile(o.Dir))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(password), 20)
	require.NoError(t, o.configure(), "again")
	again, err := os.ReadFile(PasswordFile(o.Dir))
	require.NoError(t, err)
	assert.Equal(t, string(password), string(again), "the database keeps the password of the first start")

	text, err := os.ReadFile(o.iniFile())
	require.NoError(t, err)
	for _, line := range []string{
		"http_port = 13000\n", "root_url = http://localhost:13000/\n", "allow_loading_unsigned_plugins = " + pluginID + "\n",
		"admin_password = $__file{" + PasswordFile(o.Dir) + "}\n", "provisioning = " + filepath.Join(root, "grafana", "provisioning") + "\n",
	} {
		assert.Contains(t, string(text), line)
	}
	assert.Contains(t, string(text), "[auth.anonymous]\nenabled = false\n", "a login is required unless the caller says otherwise")
	o.Anonymous = true
	require.NoError(t, o.configure())
	text, err = os.ReadFile(o.iniFile())
	require.NoError(t, err)
	assert.Contains(t, string(text), "[auth.anonymous]\nenabled = true\norg_role = Viewer\n")
	link, err := os.Readlink(filepath.Join(o.plugins(), pluginID))
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(root, "grafana-datasource", "dist"), link)
	assert.Contains(t, o.environment(), "CASSANDRA_HOSTS=127.0.0.1:9042,127.0.0.2:9042")
	assert.ErrorContains(t, PluginBuilt(root), "make plugin")
}

// TestProvisioningUsesKnownVariables compares the environment of Grafana with the files that use it.
func TestProvisioningUsesKnownVariables(t *testing.T) {
	o := Options{Dir: t.TempDir(), Program: "/bin/true"}
	require.NoError(t, o.prepare("Grafana", nil, func() error { return nil }))
	given := map[string]bool{}
	for _, v := range (GrafanaOptions{Options: o}).environment() {
		name, _, _ := bytes.Cut([]byte(v), []byte("="))
		given[string(name)] = true
	}
	files, err := filepath.Glob(filepath.Join(o.Root, "grafana", "provisioning", "*", "*.yml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, line := range bytes.Split(text, []byte("\n")) {
			code, _, _ := bytes.Cut(line, []byte("#"))
			os.Expand(string(code), func(name string) string {
				assert.True(t, given[name], "%s uses $%s, which is not in the environment of Grafana", file, name)
				return ""
			})
		}
	}
}

// TestGrafanaServesTheDashboards runs a real Grafana, which is downloaded the first time unless GRAFANA_HOME or a package has one.
func TestGrafanaServesTheDashboards(t *testing.T) {
	root, err := cluster.RepositoryRoot()
	require.NoError(t, err)
	program, err := FindGrafana(t.Context(), filepath.Join(root, ".dev", "cache"), t.Logf)
	if err != nil {
		testenv.Missing(t, testenv.Grafana, err.Error())
	}
	if err := PluginBuilt(root); err != nil {
		testenv.Missing(t, testenv.Grafana, err.Error())
	}
	dir := t.TempDir()
	grafana, err := StartGrafana(t.Context(), GrafanaOptions{
		Options: Options{Program: program, Dir: dir}, Cassandra: []string{"127.0.0.1:1"}, DC: "dc1", PrometheusURL: "http://127.0.0.1:1",
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, grafana.Stop(context.Background())) })

	files, err := filepath.Glob(filepath.Join(root, "grafana", "dashboards", "*", "*.json"))
	require.NoError(t, err)
	want := map[string]bool{}
	for _, file := range files {
		var dashboard struct{ UID string }
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &dashboard), file)
		want[dashboard.UID] = true
	}
	require.NotEmpty(t, want)
	password, err := os.ReadFile(PasswordFile(dir))
	require.NoError(t, err)
	admin := "http://admin:" + string(password) + "@" + grafana.Address
	var shown []struct{ UID string }
	require.Eventually(t, func() bool {
		return ask(t.Context(), admin+"/api/search?type=dash-db", &shown) == nil && len(shown) == len(want)
	}, time.Minute, 100*time.Millisecond, "it has the %d dashboards", len(want))
	for _, d := range shown {
		assert.True(t, want[d.UID], d.UID)
	}

	for uid, kind := range map[string]string{"fleet": pluginID, "prometheus": "prometheus"} {
		var source struct{ Type string }
		require.NoError(t, ask(t.Context(), admin+"/api/datasources/uid/"+uid, &source))
		assert.Equal(t, kind, source.Type)
	}
	var denied struct{ Message string }
	require.NoError(t, ask(t.Context(), "http://"+grafana.Address+"/api/search", &denied))
	assert.NotEmpty(t, denied.Message, "visitors see nothing without a login")
}
