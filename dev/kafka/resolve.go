package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

const (
	kafkaVersion     = "4.4.0"
	copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
)

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.github.fleettracing</groupId>
  <artifactId>dev-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>` + kafkaVersion + `</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
</project>
`

// resolveJars returns a directory with Kafka's jars. Maven fetches them once for a user, from where the user's own Maven
// settings say.
func (b *Broker) resolveJars(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	parent := filepath.Join(cache, "fleet-tracing")
	jars := filepath.Join(parent, "kafka-"+kafkaVersion)
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("find Kafka's jars: %w", err)
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("find mvn, which fetches Kafka: %w: install Maven, such as by apt-get install maven", err)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "fetching-")
	if err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), []byte(pom), 0o644); err != nil {
		return "", fmt.Errorf("write pom: %w", err)
	}
	fetched := filepath.Join(tmp, "jars")
	b.printf("fetching Kafka %s (43 MB) by Maven into %s\n", kafkaVersion, jars)
	cmd := exec.CommandContext(ctx, mvn, "-B", "-q", copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory="+fetched)
	cmd.Dir = tmp
	// mvn is often a script around java: an interrupt has to end both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("fetch Kafka %s: %w", kafkaVersion, ctx.Err())
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("fetch Kafka %s by mvn: %w: check the network and Maven's settings.xml; it said:\n%s",
			kafkaVersion, err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
	}
	if _, err := os.Stat(filepath.Join(fetched, "kafka_2.13-"+kafkaVersion+".jar")); err != nil {
		return "", fmt.Errorf("fetch Kafka %s: mvn ended well without its jar: %w", kafkaVersion, err)
	}
	// Only a whole set gets the name that is looked for. Where two processes fetch at once, the second keeps the first's.
	if err := os.Rename(fetched, jars); err != nil {
		if _, statErr := os.Stat(jars); statErr != nil {
			return "", fmt.Errorf("keep Kafka's jars: %w", err)
		}
	}
	return jars, nil
}

var javaVersion = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// resolveJava returns a java that Kafka runs on: of JAVA_HOME where that is set, else of PATH.
func resolveJava(ctx context.Context) (string, error) {
	const remedy = "install Java 17 or newer, such as by apt-get install openjdk-17-jdk-headless, and put it first in PATH or set JAVA_HOME"
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	path, err := exec.LookPath(java)
	if err != nil {
		return "", fmt.Errorf("find java: %w: %s", err, remedy)
	}
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w: %s; it said:\n%s", path, err, remedy, bytes.TrimSpace(out))
	}
	m := javaVersion.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("ask %s for its version: no version in %q: %s", path, bytes.TrimSpace(out), remedy)
	}
	if major, _ := strconv.Atoi(string(m[1])); major < 17 {
		return "", fmt.Errorf("%s is Java %d, and Kafka %s runs on 17 and newer: %s", path, major, kafkaVersion, remedy)
	}
	return path, nil
}
