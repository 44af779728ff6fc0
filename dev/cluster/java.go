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

// exporter is the Java agent that serves a node's metrics. It holds copies of libraries that Cassandra has in other
// versions, under names of its own, and stays out of the class path all the same.
var exporter = java.Program{
	Name: "JMX-exporter", Version: exporterVersion, Size: "3 MB",
	Dependencies: []java.Artifact{{Group: "io.prometheus.jmx", Name: "jmx_prometheus_javaagent", Version: exporterVersion}},
}

// moduleAccess opens what Cassandra reaches of Java's insides, after its own jvm17-server.options.
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

// serverArgs is the command line of a node after "java".
func (n Node) serverArgs(t toolchain, heapMB int) []string {
	args := []string{
		fmt.Sprintf("-Xms%dM", heapMB),
		fmt.Sprintf("-Xmx%dM", heapMB),
		fmt.Sprintf("-XX:MaxDirectMemorySize=%dM", heapMB),
		"-Xss256k",
		// G1 chooses the young generation by its pause goal, so no -Xmn. Its default region in so small a heap is 1 MiB,
		// which makes every larger buffer a humongous object.
		"-XX:+UseG1GC",
		"-XX:G1HeapRegionSize=4M",
		"-XX:MaxGCPauseMillis=300",
		"-XX:+ParallelRefProcEnabled",
		"-XX:+ExitOnOutOfMemoryError", // a node that is half alive tells a test less than one that is gone
		"-XX:+PerfDisableSharedMem",
		"-Djava.net.preferIPv4Stack=true",
		"-Dio.netty.tryReflectionSetAccessible=true",
		"-Dio.netty.allocator.useCacheForAllThreads=true",
		"-Dio.netty.allocator.maxOrder=11",
		"-javaagent:" + filepath.Join(t.jars, "jamm-0.4.0.jar"), // measures memtables
		fmt.Sprintf("-javaagent:%s=%s:%s", t.exporter, n.Metrics(), n.rules()),

		"-Djava.io.tmpdir=" + n.tmpDir(),
		"-Dlogback.configurationFile=" + filepath.Join(n.confDir(), "logback.xml"),
		"-Dcassandra-foreground=yes", // else it closes stdout, and with it the log, once it serves
		"-Dcassandra.config=file://" + filepath.Join(n.confDir(), "cassandra.yaml"),
		"-Dcassandra.storagedir=" + n.Dir,
		fmt.Sprintf("-Dcassandra.jmx.local.port=%d", n.JMXPort),

		// On one machine nothing is far away, so there is little to wait for. The ring delay is what a node waits for
		// others that are down before it starts alone.
		"-Dcassandra.skip_wait_for_gossip_to_settle=0",
		"-Dcassandra.ring_delay_ms=2000",
	}
	args = append(args, moduleAccess...)
	return append(args, "-cp", n.confDir()+":"+filepath.Join(t.jars, "*"), "org.apache.cassandra.service.CassandraDaemon")
}

// nodetoolArgs is the command line of nodetool after "java". home keeps its history file out of the user's home.
func (n Node) nodetoolArgs(jars, home string, args []string) []string {
	line := []string{
		"-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", // it lives for a second
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
