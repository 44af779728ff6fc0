package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// layout has the properties of a cluster that cannot change while it has data. Up writes it into the directory.
type layout struct {
	DCs          []DC       `json:"dcs"`
	FirstAddress netip.Addr `json:"first_address"`
	CQLPort      int        `json:"cql_port"`
	StoragePort  int        `json:"storage_port"`
	JMXPort      int        `json:"jmx_port"`
	MetricsPort  int        `json:"metrics_port"`
	Places       []Place    `json:"places,omitempty"`
}

var defaultLayout = layout{
	DCs:          []DC{{"dc1", 2}, {"dc2", 2}},
	FirstAddress: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
	CQLPort:      9042,
	StoragePort:  7000,
	JMXPort:      7101,
	MetricsPort:  7070,
}

const layoutFile = "cluster.json"

// readLayout returns the layout in dir; found is false if no cluster was started there.
func readLayout(dir string) (l layout, found bool, err error) {
	path := filepath.Join(dir, layoutFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return layout{}, false, nil
	}
	if err != nil {
		return layout{}, false, fmt.Errorf("read layout: %w", err)
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return layout{}, false, fmt.Errorf("read layout %s: %w: end the java processes of the nodes and remove %s", path, err, dir)
	}
	return l, true, nil
}

func (l layout) write(dir string) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := process.WriteFile(filepath.Join(dir, layoutFile), append(data, '\n')); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	return nil
}

// over returns l with the fields that cfg sets.
func (l layout) over(cfg Config) layout {
	if len(cfg.DCs) > 0 {
		l.DCs = cfg.DCs
	}
	if len(cfg.Places) > 0 {
		l.Places = cfg.Places
	}
	if cfg.FirstAddress.IsValid() {
		l.FirstAddress = cfg.FirstAddress
	}
	for _, v := range []struct {
		to   *int
		from int
	}{
		{&l.CQLPort, cfg.CQLPort}, {&l.StoragePort, cfg.StoragePort}, {&l.JMXPort, cfg.JMXPort},
		{&l.MetricsPort, cfg.MetricsPort},
	} {
		if v.from != 0 {
			*v.to = v.from
		}
	}
	return l
}

// differs returns the first difference between l and want as text; empty if there is none.
func (l layout) differs(want layout) string {
	switch {
	case !slices.Equal(l.DCs, want.DCs):
		return fmt.Sprintf("data centers are %s, not %s", FormatDCs(l.DCs), FormatDCs(want.DCs))
	case !slices.Equal(l.Places, want.Places):
		return fmt.Sprintf("data centers are at %v, not %v", l.Places, want.Places)
	case l.FirstAddress != want.FirstAddress:
		return fmt.Sprintf("first address is %s, not %s", l.FirstAddress, want.FirstAddress)
	case l.CQLPort != want.CQLPort:
		return fmt.Sprintf("CQL port is %d, not %d", l.CQLPort, want.CQLPort)
	case l.StoragePort != want.StoragePort:
		return fmt.Sprintf("storage port is %d, not %d", l.StoragePort, want.StoragePort)
	case l.JMXPort != want.JMXPort:
		return fmt.Sprintf("JMX port is %d, not %d", l.JMXPort, want.JMXPort)
	case l.MetricsPort != want.MetricsPort:
		return fmt.Sprintf("metrics port is %d, not %d", l.MetricsPort, want.MetricsPort)
	}
	return ""
}

func (l layout) validate() error {
	if !l.FirstAddress.Is4() || !l.FirstAddress.IsLoopback() {
		return fmt.Errorf("first address %s: the nodes have no authentication: use an address of 127.0.0.0/8", l.FirstAddress)
	}
	if len(l.Places) > 0 && len(l.Places) != len(l.DCs) {
		return fmt.Errorf("there are %d places for %d data centers: give one for each", len(l.Places), len(l.DCs))
	}
	for _, p := range l.Places {
		if !p.FirstAddress.Is4() || !p.FirstAddress.IsLoopback() && !p.FirstAddress.IsPrivate() {
			return fmt.Errorf("first address %s of a place: the nodes have no authentication: use a private address", p.FirstAddress)
		}
	}
	for _, p := range []struct {
		name string
		port int
	}{{"CQL", l.CQLPort}, {"storage", l.StoragePort}, {"JMX", l.JMXPort}, {"metrics", l.MetricsPort}} {
		if p.port < 1 || p.port > 65535-maxNodes {
			return fmt.Errorf("%s port %d: want 1 to %d", p.name, p.port, 65535-maxNodes)
		}
	}
	switch { // JMX has another address
	case l.CQLPort == l.StoragePort:
		return fmt.Errorf("CQL port and storage port are both %d: choose two", l.CQLPort)
	case l.MetricsPort == l.CQLPort || l.MetricsPort == l.StoragePort:
		return fmt.Errorf("metrics port %d is also the CQL port or the storage port: choose another", l.MetricsPort)
	}
	return nil
}

// nodes returns the nodes without their states.
func (l layout) nodes(dir string) []Node {
	var nodes []Node
	addr := l.FirstAddress
	for d, dc := range l.DCs {
		network := ""
		if len(l.Places) > 0 {
			addr, network = l.Places[d].FirstAddress, l.Places[d].Network
		}
		for range dc.Nodes {
			n := len(nodes) + 1
			nodeDir := filepath.Join(dir, fmt.Sprintf("node%d", n))
			nodes = append(nodes, Node{
				N:           n,
				DC:          dc.Name,
				Address:     addr,
				Network:     network,
				CQLPort:     l.CQLPort,
				StoragePort: l.StoragePort,
				JMXPort:     l.JMXPort + n - 1,
				MetricsPort: l.MetricsPort,
				Dir:         nodeDir,
				LogFile:     filepath.Join(nodeDir, "cassandra.log"),
			})
			addr = addr.Next()
		}
	}
	return nodes
}

const tokensPerNode = 16

// tokens assigns the ring to the nodes of a data center in turn, so that all own the same share. The rings of the data centers are
// shifted, because two nodes of a cluster cannot have the same token.
func (l layout) tokens(n int) []int64 {
	first := 0
	for d, dc := range l.DCs {
		if n > first+dc.Nodes {
			first += dc.Nodes
			continue
		}
		step := math.MaxUint64 / uint64(dc.Nodes*tokensPerNode)
		shift := step / uint64(len(l.DCs)) * uint64(d)
		tokens := make([]int64, tokensPerNode)
		for i := range tokens {
			position := uint64(i*dc.Nodes + n - first - 1)
			token := (position*step+shift)&^0xff + uint64(d) + 1 // the last byte differs between data centers
			tokens[i] = int64(token - 1<<63)                     // Murmur3 tokens are -2^63+1 to 2^63-1
		}
		return tokens
	}
	return nil
}
