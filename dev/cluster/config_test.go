package cluster

import (
	"flag"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

var update = flag.Bool("update", false, "write the golden files")

func TestDefaultDirIsBesideGoMod(t *testing.T) {
	c, err := Open(Config{})
	do(t, "open", err)
	if _, err := os.Stat(filepath.Join(c.dir, "..", "..", "go.mod")); err != nil {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	_, err = Open(Config{})
	wantError(t, err, "go.mod", "DEV_CLUSTER_DIR")
}

func TestOpenRejectsInvalidConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"open address": {Config{FirstAddress: netip.MustParseAddr("10.0.0.1")}, "127.0.0.0/8"},
		"one port":     {Config{CQLPort: 7000}, "choose two"},
		"metrics port": {Config{MetricsPort: 9042}, "metrics port 9042"},
		"heap":         {Config{HeapMB: -1}, "heap -1 MB"},
		"nodes":        {Config{DCs: cassandra.Replication{"dc1": 9, "dc2": 9}}, "at most 16"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cfg.Dir = t.TempDir()
			_, err := Open(tc.cfg)
			wantError(t, err, tc.want)
		})
	}
}

func TestDataCentersCanHaveTheirOwnNetworks(t *testing.T) {
	l := Config{Places: []Place{{FirstAddress: netip.MustParseAddr("10.0.1.1")}, {netip.MustParseAddr("10.0.2.1"), "far"}}}.over(defaults)
	do(t, "validate", l.validate())
	l.Dir = t.TempDir()
	do(t, "write", l.write())
	l, _, err := readConfig(l.Dir)
	do(t, "read", err)
	var got []string
	for _, n := range l.nodes() {
		program, args := n.inNetwork("java", "-version")
		got = append(got, n.Address.String()+" "+strings.Join(append([]string{program}, args...), " "))
	}
	want := []string{
		"10.0.1.1 java -version", "10.0.1.2 java -version",
		"10.0.2.1 nsenter --net=/run/netns/far java -version", "10.0.2.2 nsenter --net=/run/netns/far java -version",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNodesHaveStandardNames(t *testing.T) {
	l := Config{DCs: cassandra.Replication{"dc1": 2, "dc2": 1}}.over(defaults)
	var got []string
	for _, n := range l.nodes() {
		got = append(got, n.Metrics().String()+" "+n.DC+" "+n.Name)
	}
	want := []string{"127.0.0.1:7070 dc1 cassandra-dc1-node1", "127.0.0.2:7070 dc1 cassandra-dc1-node2", "127.0.0.3:7070 dc2 cassandra-dc2-node1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if layout := Layout(l.nodes()).String(); layout != "dc1=2,dc2=1" {
		t.Errorf("got %s", layout)
	}
}

func TestNodeConfiguration(t *testing.T) {
	l := defaults
	l.Dir = t.TempDir()
	n := l.nodes()[2]
	do(t, "write", n.writeConf(l, toolchain{}))
	for _, name := range []string{"cassandra.yaml", "cassandra-rackdc.properties"} {
		got, err := os.ReadFile(n.conf(name))
		do(t, "read", err)
		golden := filepath.Join("testdata", "node3-"+name)
		if *update {
			do(t, "update", os.WriteFile(golden, got, 0o644))
		}
		want, err := os.ReadFile(golden)
		do(t, "read", err)
		if string(got) != string(want) {
			t.Errorf("%s differs from %s (go test ./dev/cluster -update updates it):\n%s", name, golden, got)
		}
	}
	for _, name := range []string{"logback.xml", "logback-tools.xml", "jvm17.options", "jvm-server.options", "jmx.yml"} {
		if _, err := os.Stat(n.conf(name)); err != nil {
			t.Error(err)
		}
	}
}

func TestTokensAreDistinctAndEven(t *testing.T) {
	for _, dcs := range []string{"dc1=1", "dc1=2,dc2=2", "dc1=1,dc2=2", "dc1=3,dc2=4,dc3=5", "dc1=2,dc2=4,dc3=8"} {
		l := defaults
		var err error
		l.DCs, err = cassandra.ParseReplication(dcs)
		do(t, "parse", err)
		seen := map[int64]int{}
		first := 1
		for _, dc := range slices.Sorted(maps.Keys(l.DCs)) {
			nodes := l.DCs[dc]
			owner := map[int64]int{}
			for n := first; n < first+nodes; n++ {
				tokens := l.tokens(n)
				if len(tokens) != tokensPerNode {
					t.Errorf("%s: node %d has %d tokens", dcs, n, len(tokens))
				}
				for _, token := range tokens {
					if other, taken := seen[token]; taken {
						t.Errorf("%s: nodes %d and %d both have token %d", dcs, other, n, token)
					}
					seen[token], owner[token] = n, n
				}
			}
			if off := unevenness(owner, nodes); off > 1e-9 {
				t.Errorf("%s: nodes of %s own parts that differ by %g", dcs, dc, off)
			}
			first += nodes
		}
	}
}

// unevenness is how far the greatest part of the ring that a node owns is above an equal part.
func unevenness(owner map[int64]int, nodes int) float64 {
	var ring []int64
	for token := range owner {
		ring = append(ring, token)
	}
	slices.Sort(ring)
	part := map[int]float64{}
	for i, token := range ring {
		before := ring[(i+len(ring)-1)%len(ring)]
		part[owner[token]] += float64(uint64(token)-uint64(before)) / (1 << 63) / 2
	}
	most := 0.0
	for _, p := range part {
		most = max(most, p)
	}
	return most - 1/float64(nodes)
}

func TestAnswersCQL(t *testing.T) {
	listen := func(opcode byte) netip.AddrPort {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		do(t, "listen", err)
		t.Cleanup(func() { l.Close() })
		go serveCQL(l, opcode)
		return netip.MustParseAddrPort(l.Addr().String())
	}
	if !answersCQL(t.Context(), listen(0x06)) {
		t.Error("SUPPORTED does not count as an answer")
	}
	if answersCQL(t.Context(), listen(0x00)) {
		t.Error("ERROR counts as an answer")
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	do(t, "listen", err)
	closed.Close()
	if begun := time.Now(); answersCQL(t.Context(), netip.MustParseAddrPort(closed.Addr().String())) || time.Since(begun) > time.Second {
		t.Error("a closed port counts as an answer, or takes long")
	}
}
