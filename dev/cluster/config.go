package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Config describes a cluster. A zero field means the value of the last Up in the directory, or the default.
type Config struct {
	Dir          string     // data, logs and state; default .dev/cluster beside go.mod
	DCs          []DC       // default dc1=2,dc2=2
	HeapMB       int        // Java heap per node in MiB, not remembered; default 768
	CQLPort      int        // the same on the address of each node; default 9042
	StoragePort  int        // the same on the address of each node; default 7000
	JMXPort      int        // of node 1 on 127.0.0.1; each further node has the next one; default 7101
	MetricsPort  int        // the same on the address of each node; default 7070
	FirstAddress netip.Addr // of node 1; each further node has the next one; default 127.0.0.1
	Places       []Place    // of the data centers with their own networks; default: all from FirstAddress on
	Out          io.Writer  // progress, one line per event; nil discards it
}

// DC is a data center with its number of nodes.
type DC struct {
	Name  string `json:"name"`
	Nodes int    `json:"nodes"`
}

// Place is the network of a data center.
type Place struct {
	FirstAddress netip.Addr `json:"first_address"`     // of its first node; each further node has the next one
	Network      string     `json:"network,omitempty"` // network namespace of ip netns; empty: the one of this process
}

func (d DC) String() string { return fmt.Sprintf("%s=%d", d.Name, d.Nodes) }

// FormatDCs is the inverse of ParseDCs.
func FormatDCs(dcs []DC) string {
	parts := make([]string, len(dcs))
	for i, d := range dcs {
		parts[i] = d.String()
	}
	return strings.Join(parts, ",")
}

var dcName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,48}$`)

// maxNodes bounds the ranges of ports and addresses.
const maxNodes = 16

// ParseDCs parses data centers and their node counts, such as "dc1=2,dc2=2".
func ParseDCs(s string) ([]DC, error) {
	var dcs []DC
	total := 0
	for part := range strings.SplitSeq(s, ",") {
		name, count, found := strings.Cut(strings.TrimSpace(part), "=")
		nodes, err := strconv.Atoi(count)
		if !found || err != nil || nodes < 1 {
			return nil, fmt.Errorf("data centers %q: bad part %q: write name=nodes, such as dc1=2,dc2=2", s, part)
		}
		if !dcName.MatchString(name) {
			return nil, fmt.Errorf("data centers %q: bad name %q: use letters, digits, _ and -", s, name)
		}
		for _, d := range dcs {
			if d.Name == name {
				return nil, fmt.Errorf("data centers %q: %s occurs twice: give each data center one count", s, name)
			}
		}
		dcs = append(dcs, DC{Name: name, Nodes: nodes})
		total += nodes
	}
	if total > maxNodes {
		return nil, fmt.Errorf("data centers %q: %d nodes: at most %d fit on one machine", s, total, maxNodes)
	}
	return dcs, nil
}

// DefaultConfig reads the environment variables DEV_CLUSTER_DIR, DEV_HEAP, DEV_CQL_PORT, DEV_STORAGE_PORT, DEV_JMX_PORT,
// DEV_METRICS_PORT and DEV_FIRST_ADDRESS. Fields of unset variables are zero.
func DefaultConfig() (Config, error) {
	cfg := Config{Dir: os.Getenv("DEV_CLUSTER_DIR")}
	for _, v := range []struct {
		name string
		to   *int
	}{
		{"DEV_HEAP", &cfg.HeapMB},
		{"DEV_CQL_PORT", &cfg.CQLPort},
		{"DEV_STORAGE_PORT", &cfg.StoragePort},
		{"DEV_JMX_PORT", &cfg.JMXPort},
		{"DEV_METRICS_PORT", &cfg.MetricsPort},
	} {
		s := os.Getenv(v.name)
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return Config{}, fmt.Errorf("%s=%q: want a whole number above 0", v.name, s)
		}
		*v.to = n
	}
	if s := os.Getenv("DEV_FIRST_ADDRESS"); s != "" {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return Config{}, fmt.Errorf("DEV_FIRST_ADDRESS=%q: want an IPv4 address such as 127.0.0.1", s)
		}
		cfg.FirstAddress = addr
	}
	return cfg, nil
}

// defaultDir returns .dev/cluster in the repository.
func defaultDir() (string, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return "", fmt.Errorf("%w, or set --dir (DEV_CLUSTER_DIR)", err)
	}
	return filepath.Join(root, ".dev", "cluster"), nil
}

// RepositoryRoot returns the directory of the go.mod above the working directory. go test runs in the directories of packages.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Stat(filepath.Join(d, "go.mod"))
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("find go.mod: %w", err)
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find go.mod upwards from %s: none: run inside the repository", dir)
		}
	}
}
