package cluster

import (
	"fmt"
	"path/filepath"

	"github.com/fleettracing/fleet-tracing/dev/java"
)

const (
	cassandraVersion = "5.0.9"
	exporterVersion  = "1.0.1"
)

var program = java.Program{
	Name: "Cassandra", Version: cassandraVersion, Size: "67 MB",
	Dependencies: []java.Artifact{{Group: "org.apache.cassandra", Name: "cassandra-all", Version: cassandraVersion}},
	Runs:         func(major int) bool { return major == 17 || major == 11 },
	On:           "17 (or 11)", Get: "Java 17",
}

// exporter is the Java agent that serves the metrics of a node. It contains shaded copies of libraries, and stays out of the class
// path.
var exporter = java.Program{
	Name: "JMX-exporter", Version: exporterVersion, Size: "3 MB",
	Dependencies: []java.Artifact{{Group: "io.prometheus.jmx", Name: "jmx_prometheus_javaagent", Version: exporterVersion}},
}

// moduleAccess opens the internal packages of Java that Cassandra uses, as jvm17-server.options of Cassandra does.
var moduleAccess = []string{
	"-Djdk.attach.allowAttachSelf=true",
	"--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED",
	"--add-exports=java.base/java.lang.ref=ALL-UNNAMED",
	"--add-exports=java.management.rmi/com.sun.jmx.remote.internal.rmi=ALL-UNNAMED",
	"--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
	"--add-exports=java.rmi/sun.rmi.server=ALL-UNNAMED",
	"--add-exports=java.sql/java.sql=ALL-UNNAMED",
	"--add-exports=jdk.attach/sun.tools.attach=ALL-UNNAMED",
	"--add-exports=jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED",
	"--add-exports=jdk.unsupported/sun.misc=ALL-UNNAMED",
	"--add-opens=java.base/java.io=ALL-UNNAMED",
	"--add-opens=java.base/java.lang=ALL-UNNAMED",
	"--add-opens=java.base/java.lang.module=ALL-UNNAMED",
	"--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
	"--add-opens=java.base/java.math=ALL-UNNAMED",
	"--add-opens=java.base/java.net=ALL-UNNAMED",
	"--add-opens=java.base/java.nio=ALL-UNNAMED",
	"--add-opens=java.base/java.util=ALL-UNNAMED",
	"--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
	"--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
	"--add-opens=java.base/jdk.internal.loader=ALL-UNNAMED",
	"--add-opens=java.base/jdk.internal.math=ALL-UNNAMED",
	"--add-opens=java.base/jdk.internal.module=ALL-UNNAMED",
	"--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED",
	"--add-opens=java.base/jdk.internal.reflect=ALL-UNNAMED",
	"--add-opens=java.base/jdk.internal.util.jar=ALL-UNNAMED",
	"--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
	"--add-opens=jdk.compiler/com.sun.tools.javac=ALL-UNNAMED",
	"--add-opens=jdk.management/com.sun.management.internal=ALL-UNNAMED",
}

// serverArgs returns the arguments of java for a node.
func (n Node) serverArgs(t toolchain, heapMB int) []string {
	args := []string{
		fmt.Sprintf("-Xms%dM", heapMB),
		fmt.Sprintf("-Xmx%dM", heapMB),
		fmt.Sprintf("-XX:MaxDirectMemorySize=%dM", heapMB),
		"-Xss256k",
		// G1 sizes the young generation by its pause goal, so -Xmn is not set. The default region of a small heap is 1 MiB, which
		// makes every larger buffer a humongous object.
		"-XX:+UseG1GC",
		"-XX:G1HeapRegionSize=4M",
		"-XX:MaxGCPauseMillis=300",
		"-XX:+ParallelRefProcEnabled",
		"-XX:+ExitOnOutOfMemoryError", // a test notices an ended node sooner than a broken one
		"-XX:+PerfDisableSharedMem",
		"-Djava.net.preferIPv4Stack=true",
		"-Dio.netty.tryReflectionSetAccessible=true",
		"-Dio.netty.allocator.useCacheForAllThreads=true",
		"-Dio.netty.allocator.maxOrder=11",
		"-javaagent:" + filepath.Join(t.jars, "jamm-0.4.0.jar"), // measures memtables
		fmt.Sprintf("-javaagent:%s=%s:%s", t.exporter, n.Metrics(), n.rules()),

		"-Djava.io.tmpdir=" + n.tmpDir(),
		"-Dlogback.configurationFile=" + filepath.Join(n.confDir(), "logback.xml"),
		"-Dcassandra-foreground=yes", // else it closes stdout, which is the log
		"-Dcassandra.config=file://" + filepath.Join(n.confDir(), "cassandra.yaml"),
		"-Dcassandra.storagedir=" + n.Dir,
		fmt.Sprintf("-Dcassandra.jmx.local.port=%d", n.JMXPort),

		// On one machine, gossip settles at once. The ring delay is the time that a node waits for unreachable nodes at its start.
		"-Dcassandra.skip_wait_for_gossip_to_settle=0",
		"-Dcassandra.ring_delay_ms=2000",
	}
	args = append(args, moduleAccess...)
	return append(args, "-cp", n.confDir()+":"+filepath.Join(t.jars, "*"), "org.apache.cassandra.service.CassandraDaemon")
}

// nodetoolArgs returns the arguments of java for nodetool. Its history file goes into home.
func (n Node) nodetoolArgs(jars, home string, args []string) []string {
	line := []string{
		"-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", // it runs for a second
		"-Duser.home=" + home,
		"-Dlogback.configurationFile=" + filepath.Join(n.confDir(), "logback-tools.xml"),
		"-Dcassandra.config=file://" + filepath.Join(n.confDir(), "cassandra.yaml"),
		"-Dcassandra.storagedir=" + n.Dir,
	}
	line = append(line, moduleAccess...)
	line = append(line, "-cp", n.confDir()+":"+filepath.Join(jars, "*"), "org.apache.cassandra.tools.NodeTool",
		"-h", "127.0.0.1", "-p", fmt.Sprint(n.JMXPort))
	return append(line, args...)
}
