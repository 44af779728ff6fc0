package monitoring

import (
	"context"
	"crypto/rand"
	_ "embed" // of the configuration's template
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
)

// GrafanaVersion is the tested release. It is downloaded if no Grafana is installed.
const GrafanaVersion = "12.2.0"

const (
	systemHome = "/usr/share/grafana"
	pluginID   = "fleettracing-cassandra-datasource"
)

// FindGrafana returns the Grafana in GRAFANA_HOME. If that is not set, it returns the installed package or the release in the
// directory cache. Unless cache is empty, it downloads the release there and reports that through printf.
func FindGrafana(ctx context.Context, cache string, printf func(format string, args ...any)) (Program, error) {
	return findGrafana(ctx, os.Getenv("GRAFANA_HOME"), systemHome, officialRelease(), cache, printf)
}

func findGrafana(ctx context.Context, home, system string, r release, cache string, printf func(format string, args ...any)) (Program, error) {
	if home != "" {
		p, err := grafanaIn(home)
		if err != nil {
			return Program{}, fmt.Errorf("Grafana of GRAFANA_HOME is %w: %w: set it to the directory of an extracted release, or unset it", ErrMissing, err) //nolint:staticcheck // a proper name
		}
		return p, nil
	}
	p, err := grafanaIn(system)
	if err == nil {
		return p, nil
	}
	tried := []string{"GRAFANA_HOME is not set", err.Error()}
	if cache != "" {
		extracted := filepath.Join(cache, r.name())
		if p, err = grafanaIn(extracted); err == nil {
			return p, nil
		}
		if err = r.fetch(ctx, extracted, printf); err == nil {
			if p, err = grafanaIn(extracted); err == nil {
				return p, nil
			}
		}
		if ctx.Err() != nil {
			return Program{}, ctx.Err()
		}
		tried = append(tried, err.Error())
	}
	//nolint:staticcheck // a proper name
	return Program{}, fmt.Errorf("Grafana is %w: %s: install its package (https://grafana.com/docs/grafana/latest/setup-grafana/installation), or extract %s anywhere and set GRAFANA_HOME to its directory",
		ErrMissing, strings.Join(tried, "; "), r.url)
}

// grafanaIn returns the Grafana in the home directory of a release, a package or a build.
func grafanaIn(dir string) (Program, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Program{}, err
	}
	if _, err := os.Stat(dir); err != nil { //nolint:gosec // the user names the directory
		return Program{}, fmt.Errorf("there is no %s", dir)
	}
	for _, want := range []string{filepath.Join("conf", "defaults.ini"), "public"} {
		if _, err := os.Stat(filepath.Join(dir, want)); err != nil { //nolint:gosec // the user names the directory
			return Program{}, fmt.Errorf("%s has no %s", dir, want)
		}
	}
	bin := filepath.Join(dir, "bin")
	own := filepath.Join(bin, runtime.GOOS+"-"+runtime.GOARCH)
	for _, c := range []struct {
		path string
		args []string
	}{
		{filepath.Join(bin, "grafana"), []string{"server"}},
		{filepath.Join(own, "grafana"), []string{"server"}},
		{filepath.Join(bin, "grafana-server"), nil},
		{filepath.Join(own, "grafana-server"), nil},
	} {
		if info, err := os.Stat(c.path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return Program{Path: c.path, Home: dir, args: c.args}, nil
		}
	}
	return Program{}, fmt.Errorf("%s has no program bin/grafana, bin/grafana-server or the like in bin/%s-%s", dir, runtime.GOOS, runtime.GOARCH)
}

// GrafanaOptions configure the data sources. Dashboards and plugin come from the repository.
type GrafanaOptions struct {
	Options
	PrometheusURL string
	Cassandra     []string // contact points, host:port
	DC            string   // local data center
	Keyspace      string   // default fleet_iot
}

// environment has the variables in the files of grafana/provisioning.
func (o GrafanaOptions) environment() []string {
	keyspace := o.Keyspace
	if keyspace == "" {
		keyspace = "fleet_iot"
	}
	return []string{
		"CASSANDRA_HOSTS=" + strings.Join(o.Cassandra, ","), "CASSANDRA_DC=" + o.DC, "CASSANDRA_KEYSPACE=" + keyspace,
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

// StartGrafana starts Grafana with grafana/ and the plugin of the repository and returns when it is ready. Visitors are viewers;
// admin has the password of PasswordFile.
func StartGrafana(ctx context.Context, o GrafanaOptions) (*Process, error) {
	var err error
	if o.Options, err = o.complete(ctx, func() (Program, error) { return FindGrafana(ctx, "", nil) }); err != nil {
		return nil, fmt.Errorf("start Grafana: %w", err)
	}
	if err := PluginBuilt(o.Root); err != nil {
		return nil, fmt.Errorf("start Grafana: %w", err)
	}
	if err := o.configure(); err != nil {
		return nil, fmt.Errorf("configure Grafana: %w", err)
	}
	return o.start(ctx, "Grafana", "/api/health", []string{
		"--homepath=" + o.Program.Home, "--config=" + o.iniFile(),
	}, o.environment())
}

func (o GrafanaOptions) iniFile() string { return filepath.Join(o.config(), "grafana.ini") }
func (o GrafanaOptions) plugins() string { return filepath.Join(o.Dir, "plugins") }

//go:embed grafana.ini.tmpl
var iniText string

var iniTemplate = template.Must(template.New("grafana.ini").Parse(iniText))

func (o GrafanaOptions) configure() error {
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
	home := filepath.Join(o.Root, "grafana", "dashboards", "fleet", "fleet-realtime.json")
	if _, err := os.Stat(home); err != nil {
		home = ""
	}
	var text strings.Builder
	if err := iniTemplate.Execute(&text, map[string]any{
		"Data": o.data(), "Logs": filepath.Join(o.Dir, "logs"), "Plugins": o.plugins(), "PluginID": pluginID,
		"Provisioning": filepath.Join(o.Root, "grafana", "provisioning"), "PasswordFile": PasswordFile(o.Dir),
		"Port": o.Port, "URL": o.url(), "HomeDashboard": home,
	}); err != nil {
		return err
	}
	return os.WriteFile(o.iniFile(), []byte(text.String()), 0o644)
}
