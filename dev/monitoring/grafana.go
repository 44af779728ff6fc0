package monitoring

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // of the configuration's template
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// GrafanaVersion is the tested release. It is downloaded if no Grafana is installed.
const GrafanaVersion = "12.4.10"

const (
	systemHome = "/usr/share/grafana"
	pluginID   = "fleettracing-cassandra-datasource"
)

// FindGrafana returns the Grafana in GRAFANA_HOME. If that is not set, it returns the installed package or the release in the
// directory cache, into which it downloads the release the first time.
func FindGrafana(ctx context.Context, cache string, printf func(format string, args ...any)) (string, error) {
	return findGrafana(ctx, os.Getenv("GRAFANA_HOME"), systemHome, officialRelease(), cache, printf)
}

func findGrafana(ctx context.Context, home, system string, r release, cache string, printf func(format string, args ...any)) (string, error) {
	if home != "" {
		program, err := grafanaIn(home)
		if err != nil {
			return "", fmt.Errorf("Grafana of GRAFANA_HOME is not installed: %w: set it to the directory of an extracted release, or unset it", err) //nolint:staticcheck // a proper name
		}
		return program, nil
	}
	program, missing := grafanaIn(system)
	if missing == nil {
		return program, nil
	}
	extracted := filepath.Join(cache, r.name())
	if program, err := grafanaIn(extracted); err == nil {
		return program, nil
	}
	err := r.fetch(ctx, extracted, printf)
	if err == nil {
		program, err = grafanaIn(extracted)
	}
	if err != nil {
		//nolint:staticcheck // a proper name
		return "", fmt.Errorf("Grafana is not installed: GRAFANA_HOME is not set; %w; %w: install its package (https://grafana.com/docs/grafana/latest/setup-grafana/installation), or extract %s anywhere and set GRAFANA_HOME to its directory",
			missing, err, r.url)
	}
	return program, nil
}

// grafanaIn returns the program in the home directory of a release or a package.
func grafanaIn(home string) (string, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(home); err != nil {
		return "", fmt.Errorf("there is no %s", home)
	}
	program := filepath.Join("bin", "grafana")
	for _, want := range []string{filepath.Join("conf", "defaults.ini"), "public", program} {
		if _, err := os.Stat(filepath.Join(home, want)); err != nil {
			return "", fmt.Errorf("%s has no %s", home, want)
		}
	}
	return filepath.Join(home, program), nil
}

// GrafanaOptions configure the data sources. Dashboards and plugin come from the repository.
type GrafanaOptions struct {
	Options
	PrometheusURL string
	Cassandra     []string // contact points, host:port
	DC            string   // local data center
	Anonymous     bool     // everyone who reaches Grafana is a viewer, without a login
}

// environment has the variables in the files of grafana/provisioning.
func (o GrafanaOptions) environment() []string {
	return []string{
		"CASSANDRA_HOSTS=" + strings.Join(o.Cassandra, ","), "CASSANDRA_DC=" + o.DC, "CASSANDRA_KEYSPACE=fleet_iot",
		"CASSANDRA_USERNAME=", "CASSANDRA_PASSWORD=", // a local cluster has no users
		"PROMETHEUS_URL=" + o.PrometheusURL,
		"GRAFANA_DASHBOARDS=" + filepath.Join(o.Root, "grafana", "dashboards"),
	}
}

// PasswordFile returns the file with the password of user admin.
func PasswordFile(dir string) string { return filepath.Join(dir, "admin-password") }

// PluginBuilt returns an error if the plugin is not built in the repository.
func PluginBuilt(root string) error {
	dist := filepath.Join(root, "grafana-datasource", "dist")
	for _, name := range []string{"plugin.json", "module.js", "gpx_fleet_cassandra_" + runtime.GOOS + "_" + runtime.GOARCH} {
		if _, err := os.Stat(filepath.Join(dist, name)); err != nil {
			return fmt.Errorf("the data source is not built: %w: run make plugin, which needs npm", err)
		}
	}
	return nil
}

// StartGrafana starts Grafana with grafana/ and the plugin of the repository and returns when it is ready. The user admin
// has the password of PasswordFile. Options.Program is required.
func StartGrafana(ctx context.Context, o GrafanaOptions) (*process.Server, error) {
	if err := o.prepare("Grafana", nil, o.configure); err != nil {
		return nil, err
	}
	if err := PluginBuilt(o.Root); err != nil {
		return nil, err
	}
	home := filepath.Dir(filepath.Dir(o.Program))
	return o.start(ctx, "Grafana", "/api/health", []string{"server", "--homepath=" + home, "--config=" + o.iniFile()}, o.environment())
}

func (o GrafanaOptions) iniFile() string { return filepath.Join(o.config(), "grafana.ini") }
func (o GrafanaOptions) plugins() string { return filepath.Join(o.Dir, "plugins") }

//go:embed grafana.ini.tmpl
var iniText string

var iniTemplate = template.Must(template.New("grafana.ini").Parse(iniText))

func (o *GrafanaOptions) configure() error {
	for _, dir := range []string{o.config(), o.plugins()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Join(o.Root, "grafana-datasource", "dist"), filepath.Join(o.plugins(), pluginID)); err != nil {
		return err
	}
	if _, err := os.Stat(PasswordFile(o.Dir)); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(PasswordFile(o.Dir), []byte(rand.Text()), 0o600); err != nil {
			return err
		}
	}
	var text strings.Builder
	if err := iniTemplate.Execute(&text, map[string]any{
		"Dir": o.Dir, "Plugins": o.plugins(), "PluginID": pluginID, "Grafana": filepath.Join(o.Root, "grafana"), "PasswordFile": PasswordFile(o.Dir),
		"Port": o.port(), "Anonymous": o.Anonymous,
	}); err != nil {
		return err
	}
	return os.WriteFile(o.iniFile(), []byte(text.String()), 0o644)
}

// release is the URL of a gzipped tar archive with one directory. url.sha256 has its SHA-256.
type release struct{ url string }

func officialRelease() release {
	return release{fmt.Sprintf("https://dl.grafana.com/oss/release/grafana-%s.%s-%s.tar.gz", GrafanaVersion, runtime.GOOS, runtime.GOARCH)}
}

// name returns the file name of the archive without .tar.gz.
func (r release) name() string { return strings.TrimSuffix(path.Base(r.url), ".tar.gz") }

// fetch downloads the archive, checks it, and extracts its directory as to.
func (r release) fetch(ctx context.Context, to string, printf func(format string, args ...any)) error {
	asking, cancel := context.WithTimeout(ctx, 10*time.Second) // without access to the server, fail within seconds
	defer cancel()
	var sum strings.Builder
	if err := process.Fetch(asking, r.url+".sha256", &sum); err != nil {
		return err
	}
	want, _, _ := strings.Cut(strings.TrimSpace(sum.String()), " ")
	if len(want) != 2*sha256.Size {
		return fmt.Errorf("fetch %s.sha256: %q is not a SHA-256", r.url, want)
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return process.Install(to, func(tmp, content string) error {
		archive, err := os.Create(filepath.Join(tmp, "archive"))
		if err != nil {
			return err
		}
		defer archive.Close()
		printf("downloading %s into %s", r.url, to)
		hash := sha256.New()
		if err := process.Fetch(limited, r.url, io.MultiWriter(archive, hash)); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != want {
			return fmt.Errorf("fetch %s: its SHA-256 is %s, not %s: try again", r.url, got, want)
		}
		if err := os.Mkdir(content, 0o755); err != nil {
			return err
		}
		tar := exec.CommandContext(limited, "tar", "-xzf", archive.Name(), "-C", content, "--strip-components=1")
		if out, err := tar.CombinedOutput(); err != nil {
			return fmt.Errorf("extract %s: %w: %s", r.url, err, process.LastLines(out, 3))
		}
		return nil
	})
}
