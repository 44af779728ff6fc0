package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Config describes a cluster. A zero field means the value of the last Up in the directory, or the default. All but the heap cannot
// change while the cluster has data.
type Config struct {
	Dir          string                `json:"-" env:"DEV_CLUSTER_DIR" placeholder:"DIR" help:"Directory of data, logs and state (default .dev/cluster beside go.mod)."`
	DCs          cassandra.Replication `json:"dcs" kong:"-"` // number of nodes in each data center; nodes are in the order of the names
	HeapMB       int                   `json:"heap_mb" name:"heap" env:"DEV_HEAP" placeholder:"MB" help:"Java heap per node in MB (default 768)."`
	CQLPort      uint16                `json:"cql_port" name:"cql-port" env:"DEV_CQL_PORT" placeholder:"PORT" help:"CQL port, the same on every address (default 9042)."`
	StoragePort  uint16                `json:"storage_port" env:"DEV_STORAGE_PORT" placeholder:"PORT" help:"Port between the nodes (default 7000)."`
	JMXPort      uint16                `json:"jmx_port" name:"jmx-port" env:"DEV_JMX_PORT" placeholder:"PORT" help:"JMX port of node 1 on 127.0.0.1; node 2 has the next one (default 7101)."`
	MetricsPort  uint16                `json:"metrics_port" env:"DEV_METRICS_PORT" placeholder:"PORT" help:"Port of the metrics, the same on every address (default 7070)."`
	FirstAddress netip.Addr            `json:"first_address" env:"DEV_FIRST_ADDRESS" placeholder:"ADDRESS" help:"Address of node 1; node 2 has the next one (default 127.0.0.1)."`
	Places       []Place               `json:"places,omitempty" kong:"-"` // one for each data center, in its own network; default: all from FirstAddress on
	Out          io.Writer             `json:"-" kong:"-"`                // progress, one line per event; nil discards it
}

var defaults = Config{
	DCs: cassandra.Replication{"dc1": 2, "dc2": 2}, HeapMB: 768, CQLPort: 9042, StoragePort: 7000, JMXPort: 7101, MetricsPort: 7070,
	FirstAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
}

// Place is the network of a data center.
type Place struct {
	FirstAddress netip.Addr `json:"first_address"`     // of its first node; each further node has the next one
	Network      string     `json:"network,omitempty"` // network namespace of ip netns; empty: the one of this process
}

// maxNodes bounds the ranges of JMX ports and addresses.
const maxNodes = 16

// RepositoryRoot returns the directory of the go.mod above the working directory. go test runs in the directories of packages.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find go.mod upwards from %s: none: run inside the repository", dir)
		}
	}
}

const configFile = "cluster.json"

// readConfig returns the configuration of the cluster in dir; found is false if no cluster was started there.
func readConfig(dir string) (cfg Config, found bool, err error) {
	path := filepath.Join(dir, configFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, false, nil
	}
	if err != nil {
		return Config{}, false, fmt.Errorf("read layout: %w", err)
	}
	if err := json.Unmarshal(data, &cfg); err != nil {
		return Config{}, false, fmt.Errorf("read layout %s: %w: end the java processes of the nodes and remove %s", path, err, dir)
	}
	return cfg, true, nil
}

func (c Config) write() error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = process.WriteFile(filepath.Join(c.Dir, configFile), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	return nil
}

// over returns the fields that c sets, and those of base for the others.
func (c Config) over(base Config) Config {
	merged, set := reflect.ValueOf(&base).Elem(), reflect.ValueOf(c)
	for i := range set.NumField() {
		if field := set.Field(i); !field.IsZero() {
			merged.Field(i).Set(field)
		}
	}
	return base
}

// differs returns the first difference between the layouts of c and want as text; empty if there is none.
func (c Config) differs(want Config) string {
	for _, p := range []struct {
		property string
		is, want any
	}{
		{"data centers are", c.DCs, want.DCs},
		{"networks are", c.Places, want.Places},
		{"first address is", c.FirstAddress, want.FirstAddress},
		{"CQL port is", c.CQLPort, want.CQLPort},
		{"storage port is", c.StoragePort, want.StoragePort},
		{"JMX port is", c.JMXPort, want.JMXPort},
		{"metrics port is", c.MetricsPort, want.MetricsPort},
	} {
		if is, wanted := fmt.Sprint(p.is), fmt.Sprint(p.want); is != wanted {
			return fmt.Sprintf("%s %s, not %s", p.property, is, wanted)
		}
	}
	return ""
}

func (c Config) validate() error {
	if total := c.DCs.Total(); total > maxNodes {
		return fmt.Errorf("data centers %s: %d nodes: at most %d fit on one machine", c.DCs, total, maxNodes)
	}
	if c.HeapMB < 1 {
		return fmt.Errorf("heap %d MB: want a whole number above 0", c.HeapMB)
	}
	if !c.FirstAddress.Is4() || !c.FirstAddress.IsLoopback() {
		return fmt.Errorf("first address %s: the nodes have no authentication: use an address of 127.0.0.0/8", c.FirstAddress)
	}
	switch { // JMX has another address
	case c.CQLPort == c.StoragePort:
		return fmt.Errorf("CQL port and storage port are both %d: choose two", c.CQLPort)
	case c.MetricsPort == c.CQLPort || c.MetricsPort == c.StoragePort:
		return fmt.Errorf("metrics port %d is also the CQL port or the storage port: choose another", c.MetricsPort)
	}
	return nil
}

// nodes returns the nodes without their states.
func (c Config) nodes() (nodes []Node) {
	addr := c.FirstAddress
	for d, dc := range slices.Sorted(maps.Keys(c.DCs)) {
		network := ""
		if len(c.Places) > 0 {
			addr, network = c.Places[d].FirstAddress, c.Places[d].Network
		}
		for i := range c.DCs[dc] {
			dir := filepath.Join(c.Dir, fmt.Sprintf("node%d", len(nodes)+1))
			nodes = append(nodes, Node{
				N: len(nodes) + 1, DC: dc, Name: fmt.Sprintf("cassandra-%s-node%d", dc, i+1),
				Address: addr, Network: network, CQLPort: c.CQLPort, StoragePort: c.StoragePort, JMXPort: c.JMXPort + uint16(len(nodes)), MetricsPort: c.MetricsPort, Dir: dir, LogFile: filepath.Join(dir, "cassandra.log"),
			})
			addr = addr.Next()
		}
	}
	return nodes
}

const tokensPerNode = 16

// tokens assigns the ring to the nodes of a data center in turn, so that all own the same share. The rings of the data centers are
// shifted, because two nodes of a cluster cannot have the same token.
func (c Config) tokens(n int) []int64 {
	first := 0
	for d, dc := range slices.Sorted(maps.Keys(c.DCs)) {
		nodes := c.DCs[dc]
		if n > first+nodes {
			first += nodes
			continue
		}
		step := math.MaxUint64 / uint64(nodes*tokensPerNode)
		shift := step / uint64(len(c.DCs)) * uint64(d)
		tokens := make([]int64, tokensPerNode)
		for i := range tokens {
			position := uint64(i*nodes + n - first - 1)
			token := (position*step+shift)&^0xff + uint64(d) + 1 // the last byte differs between data centers
			tokens[i] = int64(token - 1<<63)                     // Murmur3 tokens are -2^63+1 to 2^63-1
		}
		return tokens
	}
	return nil
}
