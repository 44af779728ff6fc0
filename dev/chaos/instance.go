package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/monitoring"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// instance is a fleet-etl run with its own state directory and addresses.
type instance struct {
	p            *platform
	name         string
	network      int    // of Tunnel; here without one
	api, metrics string // host:port
	log          *os.File
	child        atomic.Pointer[process.Child] // nil while it is stopped
}

func (p *platform) newInstance(name string, network int) (*instance, error) {
	addresses, err := process.FreeAddresses(2)
	if network != here { // where all ports are free
		addresses, err = []string{address(network).String() + ":8080", address(network).String() + ":9100"}, nil
	}
	if err != nil {
		return nil, err
	}
	i := &instance{p: p, name: name, network: network, api: addresses[0], metrics: addresses[1]}
	i.log, err = os.Create(filepath.Join(p.Dir, name+".log"))
	return i, err
}

// environment has the settings of fleet-etl. Commands share them with run, apart from the address of the metrics.
func (i *instance) environment() []string {
	p := i.p
	env := append(os.Environ(),
		"CASSANDRA_HOSTS="+strings.Join(p.store.Hosts, ","), "CASSANDRA_KEYSPACE="+p.Keyspace, "CASSANDRA_DC=dc1", "CASSANDRA_REPLICATION=dc1=2,dc2=2",
		"ETL_STATE_DIR="+filepath.Join(p.Dir, i.name+"-state"), "ETL_METRICS_ADDRESS=", "ETL_ALERT_RULES_FILE="+filepath.Join(p.Dir, "alert-rules.yml"),
		"ETL_API_ADDRESS="+i.api, "ETL_API_TOKENS_FILE="+p.tokensFile(), "ETL_API_MAX_CONNECTIONS=200",
		"ETL_SOURCES=api", "ETL_PROCESSOR_FLUSH_INTERVAL=1s", "ETL_ALERT_NOTIFY_MAX_AGE=1h", "ETL_DRAIN_TIMEOUT=60s", clockVariable+"="+p.clockFile(),
		fmt.Sprintf("ETL_CANARY_INTERVAL=%s", 10*time.Second/speedup),
	)
	if p.inbox != nil && i.network == here {
		env = append(env, "ETL_ALERTMANAGER_URLS=http://"+p.alertmanager.Address)
	}
	return env
}

func (i *instance) start() error {
	cmd := exec.Command(i.p.program, "run") //nolint:noctx // ended by kill or stop
	if i.network != here {
		cmd = exec.Command("nsenter", "--net=/run/netns/"+namespace(i.network), i.p.program, "run") //nolint:noctx // as above
	}
	cmd.Env, cmd.Dir = append(i.environment(), "ETL_METRICS_ADDRESS="+i.metrics), i.p.Dir
	cmd.Stdout, cmd.Stderr = i.log, i.log
	child, err := process.StartChild(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", i.name, err)
	}
	i.child.Store(child)
	return nil
}

func (i *instance) kill() {
	if c := i.child.Swap(nil); c != nil {
		c.Kill()
	}
}

// stop ends the instance with SIGTERM. An exit status other than 0 is an error.
func (i *instance) stop() error {
	c := i.child.Swap(nil)
	if c == nil {
		return nil
	}
	if err := c.Stop(90 * time.Second); err != nil {
		return fmt.Errorf("stop %s: %w; its log: %s", i.name, err, i.log.Name())
	}
	return nil
}

// metric returns the sum of the series with the name and all of the labels; -1 if there are none or the scrape fails.
func (i *instance) metric(name string, labels ...string) float64 {
	return monitoring.Metric("http://"+i.metrics+"/metrics", name, labels...)
}

func (i *instance) storeUp() bool { return i.metric("fleet_etl_store_up") == 1 }
