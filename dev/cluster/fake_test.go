package cluster

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The test binary is also the java that the tests put first in PATH: a node that takes milliseconds to start, and fails
// as a real one does.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "java" {
		var line []string
		for _, arg := range os.Args[1:] {
			if file, isFile := strings.CutPrefix(arg, "@"); isFile {
				options, _ := os.ReadFile(file)
				arg = strings.ReplaceAll(string(options), `"`, "")
			}
			line = append(line, arg)
		}
		os.Exit(fakeJava(strings.Join(line, " ")))
	}
	os.Exit(m.Run())
}

// useFakeJava makes fake java, and no jars at all, what the cluster runs.
func useFakeJava(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, cache := t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "java")); err != nil {
		t.Fatal(err)
	}
	for _, jars := range []string{"cassandra-" + cassandraVersion, "jmx-exporter-" + exporterVersion} {
		if err := os.MkdirAll(filepath.Join(cache, "fleet-tracing", jars), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each end of a fake takes a second under -race
	t.Setenv("JAVA_HOME", "")
	t.Setenv("XDG_CACHE_HOME", cache)
}

func fakeJava(line string) int {
	config := find(line, `-Dcassandra\.config=file://(\S+)`)
	switch {
	case line == "-version":
		fmt.Fprintln(os.Stderr, `openjdk version "17.0.15" 2025-04-15`)
		return 0
	case strings.Contains(line, "-Xmx8M"):
		fmt.Println("Error occurred during initialization of VM\nToo small maximum heap")
		return 1
	}
	yaml, err := os.ReadFile(config)
	if err != nil {
		fmt.Println("ERROR [main] no configuration:", err)
		return 3
	}
	if strings.Contains(line, "NodeTool") {
		for seed := range strings.SplitSeq(find(string(yaml), `seeds: "(.*)"`), ",") {
			state := "DN"
			if conn, err := net.DialTimeout("tcp", seed, time.Second); err == nil {
				conn.Close()
				state = "UN"
			}
			host, _, _ := net.SplitHostPort(seed)
			fmt.Println(state, " "+host, " 100 KiB")
		}
		return 0
	}
	if os.Getenv("FAKE_JAVA_DUMB") != "" {
		time.Sleep(time.Hour)
	}
	addr := find(string(yaml), `rpc_address: (\S+)`)
	if _, err := net.Listen("tcp", addr+":"+find(string(yaml), `storage_port: (\S+)`)); err != nil {
		fmt.Println("ERROR [main]", err)
		return 3
	}
	l, err := net.Listen("tcp", addr+":"+find(string(yaml), `native_transport_port: (\S+)`))
	if err != nil {
		fmt.Println("ERROR [main]", err)
		return 3
	}
	fmt.Println("INFO  [main] Starting listening for CQL clients")
	serveCQL(l, 0x06)
	return 0
}

// serveCQL answers every frame with one of the given opcode.
func serveCQL(l net.Listener, opcode byte) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		var frame [9]byte
		if _, err := io.ReadFull(conn, frame[:]); err == nil {
			conn.Write([]byte{0x84, 0, frame[2], frame[3], opcode, 0, 0, 0, 2, 0, 0})
		}
		conn.Close()
	}
}

func find(in, pattern string) string {
	if m := regexp.MustCompile(pattern).FindStringSubmatch(in); m != nil {
		return m[1]
	}
	return ""
}
