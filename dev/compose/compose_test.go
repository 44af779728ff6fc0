// Package compose has the tests of docker-compose.yml and the Dockerfiles. They use the loader of compose and need no Docker engine.
package compose

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
	"github.com/fleettracing/fleet-tracing/dev/testenv"
)

const root = "../.."

var (
	four  = variant{"four nodes", []string{"docker-compose.yml"}, "targets/cassandra.yml", 4}
	small = variant{"small", []string{"docker-compose.yml", "compose.small.yml"}, "targets-small/cassandra.yml", 2}

	profiles    = [][]string{nil, {"kafka"}, {"redis"}, {"tools"}, {"load"}, {"kafka", "redis", "tools", "load"}}
	dockerfiles = []string{"cassandra/Dockerfile", "etl/Dockerfile", "grafana/Dockerfile"}
)

type variant struct {
	name    string
	files   []string
	targets string // file with the addresses of the nodes for Prometheus
	nodes   int
}

// loaded caches the projects, because the loader is slow.
var loaded = map[string]*types.Project{}

func (v variant) load(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	key := fmt.Sprint(v.files, profiles)
	if loaded[key] == nil {
		loaded[key] = v.loadAnew(t, profiles)
	}
	return loaded[key]
}

func (v variant) loadAnew(t *testing.T, profiles []string) *types.Project {
	t.Helper()
	env, err := dotenv.Read(filepath.Join(root, ".env"))
	require.NoError(t, err)
	dir, err := filepath.Abs(root)
	require.NoError(t, err)
	details := types.ConfigDetails{WorkingDir: dir, Environment: env}
	for _, file := range v.files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: filepath.Join(dir, file)})
	}
	project, err := loader.LoadWithContext(t.Context(), details, loader.WithProfiles(profiles), func(o *loader.Options) {
		o.SetProjectName("fleet-tracing", true)
	})
	require.NoError(t, err)
	return project
}

// everywhere runs a check of both variants with every profile.
func everywhere(t *testing.T, check func(t *testing.T, v variant, p *types.Project)) {
	for _, v := range []variant{four, small} {
		for _, active := range profiles {
			t.Run(v.name+" "+strings.Join(active, ","), func(t *testing.T) { check(t, v, v.load(t, active...)) })
		}
	}
}

func once(s types.ServiceConfig) bool { return s.Restart == "no" }

func isNode(s types.ServiceConfig) bool { return strings.HasPrefix(s.Name, "cassandra-dc") }

func nodes(p *types.Project) []string {
	var names []string
	for _, name := range p.ServiceNames() {
		if isNode(p.Services[name]) {
			names = append(names, name)
		}
	}
	return names
}

func TestDependenciesHaveHealthChecks(t *testing.T) {
	everywhere(t, func(t *testing.T, _ variant, p *types.Project) {
		adopted := map[string]bool{}
		for _, s := range p.Services {
			for name, on := range s.DependsOn {
				other, there := p.Services[name]
				if !there {
					assert.False(t, on.Required, "%s waits for %s, which is not there", s.Name, name)
					continue
				}
				switch on.Condition {
				case types.ServiceConditionHealthy:
					require.NotNil(t, other.HealthCheck, "%s waits for the health of %s", s.Name, name)
					assert.NotEmpty(t, other.HealthCheck.Test, name)
					assert.False(t, once(other), "%s waits for the health of %s, which ends", s.Name, name)
				case types.ServiceConditionCompletedSuccessfully:
					assert.True(t, once(other), "%s waits for the end of %s, which does not end", s.Name, name)
					adopted[name] = adopted[name] || !once(s)
				default:
					t.Errorf("%s waits for %s only to start", s.Name, name)
				}
			}
		}
		for _, s := range p.Services {
			if once(s) {
				assert.True(t, adopted[s.Name], "up --wait fails when %s ends, unless a service that stays waits for it", s.Name)
			} else {
				assert.Equal(t, "unless-stopped", s.Restart, s.Name)
				assert.True(t, s.HealthCheck != nil || s.Name == "load", "%s has no health check", s.Name)
			}
		}
	})
}

func TestNodesStartOneAfterTheOther(t *testing.T) {
	everywhere(t, func(t *testing.T, v variant, p *types.Project) {
		require.Len(t, nodes(p), v.nodes)
		after := map[string]string{}
		for _, name := range nodes(p) {
			before := ""
			for other, on := range p.Services[name].DependsOn {
				if isNode(p.Services[other]) {
					assert.Empty(t, before, "%s waits for two nodes", name)
					assert.Equal(t, types.ServiceConditionHealthy, on.Condition)
					before = other
				}
			}
			assert.Empty(t, after[before], "%s and %s join at once", after[before], name)
			after[before] = name
		}
		for name, i := after[""], 1; i < v.nodes; name, i = after[name], i+1 {
			assert.NotEmpty(t, after[name], "no node starts after %s", name)
		}
		for _, name := range nodes(p) {
			assert.Contains(t, p.Services["schema-init"].DependsOn, name)
			assert.Contains(t, *p.Services[name].Environment["JVM_EXTRA_OPTS"], fmt.Sprintf("system_auth.default_rf=%d", v.nodes))
			assert.Equal(t, *p.Services[name].Environment["CASSANDRA_DC"], strings.Split(name, "-")[1])
			for _, seed := range strings.Split(*p.Services[name].Environment["CASSANDRA_SEEDS"], ",") {
				assert.Contains(t, nodes(p), seed)
			}
		}
		assert.Equal(t, fmt.Sprint(v.nodes), *p.Services["preflight"].Environment["NODES"])
	})
}

// A restart must not give the address of a stopped node to another container.
func TestNodesHaveFixedAddresses(t *testing.T) {
	everywhere(t, func(t *testing.T, _ variant, p *types.Project) {
		pool := p.Networks["default"].Ipam.Config[0]
		subnet, others := netip.MustParsePrefix(pool.Subnet), netip.MustParsePrefix(pool.IPRange)
		seen := map[string]bool{}
		for _, name := range nodes(p) {
			require.NotNil(t, p.Services[name].Networks["default"], name)
			address := p.Services[name].Networks["default"].Ipv4Address
			assert.False(t, seen[address], address)
			seen[address] = true
			assert.True(t, subnet.Contains(netip.MustParseAddr(address)), address)
			assert.False(t, others.Contains(netip.MustParseAddr(address)), "%s may be given to another container", address)
		}
	})
}

func TestServicesHaveLimits(t *testing.T) {
	everywhere(t, func(t *testing.T, _ variant, p *types.Project) {
		var memory types.UnitBytes
		for _, s := range p.Services {
			assert.NotZero(t, s.MemLimit, s.Name)
			if !once(s) {
				memory += s.MemLimit
			}
			assert.Equal(t, types.Options{"max-size": "10m", "max-file": "3"}, s.Logging.Options, s.Name)
			assert.Equal(t, []string{"ALL"}, s.CapDrop, s.Name)
			assert.Equal(t, []string{"no-new-privileges:true"}, s.SecurityOpt, s.Name)
			assert.False(t, s.Privileged, s.Name)
			for _, port := range s.Ports {
				assert.Equal(t, "127.0.0.1", port.HostIP, "%s: %s", s.Name, port.Published)
			}
			for variable, value := range s.Environment {
				if strings.Contains(variable, "PASSWORD") && value != nil {
					assert.Regexp(t, `^(\$__file\{)?/run/secrets/\w+}?$`, *value, "%s: a password belongs into a file", variable)
				}
			}
		}
		assert.Less(t, int64(memory), int64(10)<<30, "a laptop of 12 GB has to keep some for itself")
	})
}

func TestMountsExist(t *testing.T) {
	everywhere(t, func(t *testing.T, _ variant, p *types.Project) {
		for _, s := range p.Services {
			for _, mount := range s.Volumes {
				switch mount.Type {
				case types.VolumeTypeBind:
					exists(t, mount.Source, s.Name)
					assert.True(t, mount.ReadOnly, "%s: %s", s.Name, mount.Source)
				case types.VolumeTypeVolume:
					assert.Contains(t, p.Volumes, mount.Source, s.Name)
				default:
					t.Errorf("%s: mount of type %s", s.Name, mount.Type)
				}
			}
		}
	})
}

// exists reports whether there is a file, or a directory with files.
func exists(t *testing.T, path, whose string) {
	t.Helper()
	info, err := os.Stat(path)
	if !assert.NoError(t, err, whose) || !info.IsDir() {
		return
	}
	entries, err := os.ReadDir(path)
	assert.NoError(t, err)
	assert.NotEmpty(t, entries, "%s: %s", whose, path)
}

// listening returns the ports at which a service answers other services.
func listening(s types.ServiceConfig) []string {
	ports := map[string][]string{"kafka": {"9092"}, "redis": {"6379"}}[s.Name]
	for _, port := range s.Ports {
		ports = append(ports, fmt.Sprint(port.Target))
	}
	if isNode(s) {
		ports = append(ports, "9042")
		if m := regexp.MustCompile(`-javaagent:\S+=(\d+):`).FindStringSubmatch(*s.Environment["JVM_EXTRA_OPTS"]); m != nil {
			ports = append(ports, m[1])
		}
	}
	return ports
}

func answers(t *testing.T, p *types.Project, address, whose string) {
	t.Helper()
	host, port, _ := strings.Cut(address, ":")
	s, there := p.Services[host]
	if assert.True(t, there, "%s: there is no service %s", whose, host) && port != "" {
		assert.Contains(t, listening(s), port, "%s: %s", whose, address)
	}
}

func TestScrapedTargetsAreServices(t *testing.T) {
	for _, v := range []variant{four, small} {
		p := v.load(t)
		files, err := filepath.Glob(root + "/prometheus/targets/*.yml")
		require.NoError(t, err)
		require.NotEmpty(t, files)
		var scraped []string
		for _, file := range files {
			if filepath.Base(file) == "cassandra.yml" {
				file = root + "/prometheus/" + v.targets
				mounted := slices.ContainsFunc(p.Services["prometheus"].Volumes, func(m types.ServiceVolumeConfig) bool {
					return m.Target == "/etc/prometheus/targets/cassandra.yml" && strings.HasSuffix(m.Source, v.targets)
				})
				assert.Equal(t, v.name == small.name, mounted)
			}
			var groups []struct{ Targets []string }
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, yaml.Unmarshal(text, &groups))
			for _, g := range groups {
				for _, target := range g.Targets {
					answers(t, p, target, file)
					host, _, _ := strings.Cut(target, ":")
					scraped = append(scraped, host)
				}
			}
		}
		for _, name := range nodes(p) {
			assert.Contains(t, scraped, name)
		}
	}
}

var anyURL = regexp.MustCompile(`(?:https?|redis)://([\w.-]+(?::\d+)?)`)

func TestAddressesInSettingsAreServices(t *testing.T) {
	everywhere(t, func(t *testing.T, v variant, _ *types.Project) {
		p := v.load(t, "kafka", "redis", "tools", "load") // a setting may name a service of a profile
		for _, s := range p.Services {
			for variable, value := range s.Environment {
				switch {
				case value == nil || *value == "" || strings.HasSuffix(variable, "ROOT_URL") || variable == "ETL_GRAFANA_URL":
				case variable == "CASSANDRA_HOSTS" || variable == "KAFKA_BROKERS" || variable == "CASSANDRA_HOST":
					for _, host := range strings.Split(*value, ",") {
						answers(t, p, host, s.Name+" "+variable)
					}
				default:
					for _, m := range anyURL.FindAllStringSubmatch(*value, -1) {
						answers(t, p, m[1], s.Name+" "+variable)
					}
				}
			}
			for _, m := range anyURL.FindAllStringSubmatch(strings.Join(s.Command, " "), -1) {
				if host := m[1]; !strings.HasPrefix(host, "localhost") {
					answers(t, p, host, s.Name+" command")
				}
			}
			if s.HealthCheck != nil {
				for _, m := range anyURL.FindAllStringSubmatch(strings.Join(s.HealthCheck.Test, " "), -1) {
					answers(t, p, strings.Replace(m[1], "localhost", s.Name, 1), s.Name+" health check")
				}
			}
		}
	})
}

var settingTag = regexp.MustCompile(`envconfig:"(\w+)".*?(secret:|\n)`)

// fleet-etl ignores misspelled settings.
func TestSettingsOfFleetETLExist(t *testing.T) {
	known := map[string]bool{}
	for _, m := range settingTag.FindAllStringSubmatch(read(t, "etl/internal/config/config.go"), -1) {
		known[m[1]] = true
		known[m[1]+"_FILE"] = known[m[1]+"_FILE"] || m[2] == "secret:"
	}
	require.Greater(t, len(known), 50)
	p := four.load(t)
	for _, name := range []string{"etl", "schema-init"} {
		for variable := range p.Services[name].Environment {
			assert.True(t, known[variable], "%s: fleet-etl has no setting %s", name, variable)
		}
	}
}

func TestGrafanaHasTheVariablesOfProvisioning(t *testing.T) {
	given := map[string]bool{}
	for variable := range four.load(t).Services["grafana"].Environment {
		given[variable] = true
	}
	for variable := range imageEnvironment(t, "grafana/Dockerfile") {
		given[variable] = true
	}
	files, err := filepath.Glob(root + "/grafana/provisioning/*/*.yml")
	require.NoError(t, err)
	asked := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, line := range strings.Split(string(text), "\n") {
			setting, _, _ := strings.Cut(line, "#")
			for _, m := range regexp.MustCompile(`\$\{?([A-Z_]+)`).FindAllStringSubmatch(setting, -1) {
				assert.True(t, given[m[1]], "%s asks for %s", file, m[1])
				asked++
			}
		}
	}
	assert.NotZero(t, asked)
}

// imageEnvironment returns the environment variables that a Dockerfile sets.
func imageEnvironment(t *testing.T, dockerfile string) map[string]string {
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(?:ENV|   ) (\w+)=(\S*)`).FindAllStringSubmatch(read(t, dockerfile), -1) {
		all[m[1]] = m[2]
	}
	require.NotEmpty(t, all)
	return all
}

func TestGrafanaRequiresLogin(t *testing.T) {
	everywhere(t, func(t *testing.T, _ variant, p *types.Project) {
		set := imageEnvironment(t, "grafana/Dockerfile")
		for variable, value := range p.Services["grafana"].Environment {
			if value != nil {
				set[variable] = *value
			}
		}
		for variable := range set {
			assert.NotContains(t, variable, "GF_AUTH_ANONYMOUS", "visitors without a login would read every fleet")
		}
		assert.Equal(t, "/run/secrets/grafana_admin_password", set["GF_SECURITY_ADMIN_PASSWORD__FILE"], "otherwise admin has a known password")
	})
}

// A page in a browser on this machine could stop Prometheus or delete its data.
func TestPrometheusCannotBeControlledOverHTTP(t *testing.T) {
	for _, flag := range four.load(t).Services["prometheus"].Command {
		assert.NotRegexp(t, `^--web\.enable-(lifecycle|admin-api|remote-write-receiver)`, flag)
	}
}

// preflight runs preflight.sh on folders of the test instead of volumes.
func preflight(t *testing.T, volumes string) {
	t.Helper()
	script := strings.NewReplacer("/secrets/", volumes+"/", "/given/", volumes+"/given/").Replace(read(t, "cassandra/image/preflight.sh"))
	run := exec.CommandContext(t.Context(), "bash", "-c", script)
	run.Env = []string{"PATH=" + os.Getenv("PATH"), "NODES=1", "CASSANDRA_HEAP=256M", "CASSANDRA_MEMORY=768M"}
	out, err := run.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestPasswordOfRedisIsGenerated(t *testing.T) {
	volumes := t.TempDir()
	for _, s := range four.load(t).Services["preflight"].Volumes {
		if folder, is := strings.CutPrefix(s.Target, "/secrets/"); is {
			require.NoError(t, os.Mkdir(filepath.Join(volumes, folder), 0o755))
		}
	}
	content := func(file string) string {
		text, err := os.ReadFile(filepath.Join(volumes, file))
		require.NoError(t, err)
		return string(text)
	}
	preflight(t, volumes)
	password := content("redis/redis_password")
	assert.Regexp(t, `^[A-Za-z0-9_=-]{24,}$`, password)
	preflight(t, volumes)
	assert.Equal(t, password, content("redis/redis_password"), "the next start keeps it")

	address, err := url.Parse(content("etl/redis_url"))
	require.NoError(t, err)
	given, _ := address.User.Password()
	assert.Equal(t, password, given)
	answers(t, four.load(t, "redis"), address.Host, "redis_url")
}

func TestRedisRequiresThePassword(t *testing.T) {
	testenv.Program(t, testenv.Redis, "redis-server", "redis-server")
	s := four.load(t, "redis").Services["redis"]
	addresses, err := process.FreeAddresses(1)
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(addresses[0])
	require.NoError(t, err)
	secret := filepath.Join(t.TempDir(), "redis_password")
	require.NoError(t, os.WriteFile(secret, []byte("a-password_="), 0o600))

	var command []string
	for _, word := range slices.Concat(s.Entrypoint, s.Command) { // "$$" is "$" in a container
		command = append(command, strings.NewReplacer("$$", "$", "/run/secrets/redis_password", secret, "redis-server -", "redis-server - --bind 127.0.0.1 --port "+port).Replace(word))
	}
	server := exec.CommandContext(t.Context(), command[0], command[1:]...)
	server.Dir = t.TempDir()
	require.NoError(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() { _ = server.Process.Kill(); <-ended })

	get := func(password string) error {
		client := redis.NewClient(&redis.Options{Addr: addresses[0], Password: password, MaxRetries: -1})
		defer client.Close()
		return client.Ping(t.Context()).Err()
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, get("a-password_=")) }, 10*time.Second, 20*time.Millisecond)
	assert.ErrorContains(t, get(""), "NOAUTH")
	assert.ErrorContains(t, get("another"), "WRONGPASS")
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", server.Process.Pid))
	if err == nil {
		assert.NotContains(t, string(arguments), "a-password_=")
	}

	check := strings.NewReplacer("$$", "$", "/run/secrets/redis_password", secret, "redis-cli", "redis-cli -p "+port).Replace(s.HealthCheck.Test[1])
	require.Equal(t, "CMD-SHELL", s.HealthCheck.Test[0])
	out, err := exec.CommandContext(t.Context(), "sh", "-c", check).CombinedOutput()
	assert.NoError(t, err, string(out))
}

func TestDotEnvNamesEveryVariable(t *testing.T) {
	env, err := dotenv.Read(filepath.Join(root, ".env"))
	require.NoError(t, err)
	used := map[string]bool{"COMPOSE_PROFILES": true} // compose itself
	for _, file := range small.files {
		var tree map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(read(t, file)), &tree))
		for name, v := range template.ExtractVariables(tree, template.DefaultPattern) {
			used[name] = true
			assert.Contains(t, env, name, file)
			assert.Empty(t, v.DefaultValue, "%s: the default of %s belongs into .env", file, name)
		}
	}
	for name := range env {
		assert.True(t, used[name], ".env: %s is not used", name)
		assert.NotContains(t, name, "PASSWORD", ".env: passwords belong into secrets/")
	}
}

var pinned = regexp.MustCompile(`:v?\d+\.\d+\.\d+(-[\w.-]+)?$`)

func TestImagesArePinned(t *testing.T) {
	everywhere(t, func(t *testing.T, _ variant, p *types.Project) {
		for _, s := range p.Services {
			assert.Regexp(t, pinned, s.Image, s.Name)
			if s.Build != nil {
				assert.Contains(t, dockerfiles, s.Build.Dockerfile)
			}
		}
	})
	for _, file := range dockerfiles {
		for _, s := range stages(t, file) {
			if s.base != "scratch" {
				assert.Regexp(t, pinned, s.base, file)
			}
		}
	}
}

// Docker runs the versions of the other tests.
func TestVersionsMatchDevelopment(t *testing.T) {
	images := map[string]string{}
	for _, s := range four.load(t, "kafka").Services {
		name, tag, _ := strings.Cut(s.Image, ":")
		images[name] = tag
	}
	node := read(t, "dev/cluster/node.go")
	dockerfile := read(t, "cassandra/Dockerfile")
	cassandra := regexp.MustCompile(`cassandraVersion = "(.+)"`).FindStringSubmatch(node)
	exporter := regexp.MustCompile(`exporterVersion  = "(.+)"`).FindStringSubmatch(node)
	require.NotNil(t, cassandra)
	require.NotNil(t, exporter)
	assert.Equal(t, cassandra[1], images["fleet-tracing/cassandra"])
	assert.Contains(t, dockerfile, "FROM cassandra:"+cassandra[1]+"\n")
	assert.Contains(t, dockerfile, "jmx_prometheus_javaagent-"+exporter[1]+".jar")
	assert.Contains(t, read(t, "dev/kafka/kafka.go"), `kafkaVersion = "`+images["apache/kafka"]+`"`)
	assert.Equal(t, monitoring.GrafanaVersion, images["fleet-tracing/grafana"])
	assert.True(t, slices.ContainsFunc(stages(t, "grafana/Dockerfile"), func(s stage) bool {
		return s.base == "grafana/grafana:"+monitoring.GrafanaVersion
	}))
}

type stage struct {
	base, name string
	copies     []string // paths in the repository
}

var (
	argLine  = regexp.MustCompile(`^ARG (\w+)=(\S+)$`)
	fromLine = regexp.MustCompile(`^FROM (?:--\S+ )?(\S+)(?: AS (\w+))?$`)
)

func stages(t *testing.T, file string) []stage {
	var all []stage
	defaults := map[string]string{}
	for _, line := range strings.Split(read(t, file), "\n") {
		if m := argLine.FindStringSubmatch(line); m != nil && len(all) == 0 {
			defaults[m[1]] = m[2]
		}
		if m := fromLine.FindStringSubmatch(line); m != nil {
			all = append(all, stage{base: os.Expand(m[1], func(name string) string { return defaults[name] }), name: m[2]})
			continue
		}
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "COPY" {
			continue
		}
		words = slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "--ch") })
		last := &all[len(all)-1]
		if from, is := strings.CutPrefix(words[0], "--from="); is {
			assert.True(t, slices.ContainsFunc(all, func(s stage) bool { return s.name == from }), "%s: %s", file, line)
			continue
		}
		last.copies = append(last.copies, words[:len(words)-1]...)
	}
	require.NotEmpty(t, all, file)
	return all
}

func TestDockerfilesCopyExistingFiles(t *testing.T) {
	allowed := map[string]bool{}
	for _, line := range strings.Split(read(t, ".dockerignore"), "\n") {
		if name, is := strings.CutPrefix(line, "!"); is {
			allowed[name] = true
			exists(t, filepath.Join(root, name), ".dockerignore")
		}
	}
	for _, file := range dockerfiles {
		for _, s := range stages(t, file) {
			for _, path := range s.copies {
				top, _, _ := strings.Cut(path, "/")
				assert.True(t, allowed[top], "%s copies %s, which .dockerignore keeps out", file, path)
				exists(t, filepath.Join(root, path), file)
			}
		}
	}
}

// The plugin is built for both architectures of the images.
func TestImagesSupportBothArchitectures(t *testing.T) {
	for _, file := range dockerfiles[1:] {
		text := read(t, file)
		assert.Contains(t, text, "FROM --platform=$BUILDPLATFORM golang:", file)
		assert.Contains(t, text, "TARGETARCH", file)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		assert.Contains(t, read(t, "grafana/Dockerfile"), arch+")")
	}
}

func read(t *testing.T, path string) string {
	text, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(text)
}

// The tests cover all profiles.
func TestEveryProfileIsTested(t *testing.T) {
	p := four.load(t)
	found := map[string]bool{}
	for _, s := range p.DisabledServices {
		for _, name := range s.Profiles {
			found[name] = true
		}
	}
	assert.ElementsMatch(t, profiles[len(profiles)-1], slices.Collect(maps.Keys(found)))
}
