// Package java finds what programs of the Java world need to run: a java of the right version, and their jars, which Maven
// fetches once for a user.
package java

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

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Program is a program and the jars that it is in.
type Program struct {
	Name         string // as people call it
	Version      string
	Size         string     // of all its jars, for people
	Dependencies []Artifact // the first is the program itself

	Runs func(major int) bool // tells which versions of Java it runs on
	On   string               // the same for people, for example 17 and newer
	Get  string               // what to install, for example Java 17 or newer
}

// Artifact is a jar in a Maven repository.
type Artifact struct{ Group, Name, Version string }

const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// pom lists the program's dependencies for Maven.
func (p Program) pom() string {
	var b strings.Builder
	b.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.github.fleettracing</groupId>
  <artifactId>dev-` + p.directory() + `</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
`)
	for _, a := range p.Dependencies {
		fmt.Fprintf(&b, "    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n", a.Group, a.Name, a.Version)
	}
	b.WriteString("  </dependencies>\n</project>\n")
	return b.String()
}

// directory is where the jars are in the cache.
func (p Program) directory() string { return strings.ToLower(p.Name) + "-" + p.Version }

// Jars returns a directory with the program's jars. Maven fetches them once for a user, from where the user's own Maven
// settings say; say hears of it.
func (p Program) Jars(ctx context.Context, say func(format string, args ...any)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	parent := filepath.Join(cache, "fleet-tracing")
	jars := filepath.Join(parent, p.directory())
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("find %s's jars: %w", p.Name, err)
	}

	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("find mvn, which fetches %s: %w: install Maven, such as by apt-get install maven", p.Name, err)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "fetching-")
	if err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), []byte(p.pom()), 0o644); err != nil {
		return "", fmt.Errorf("write pom: %w", err)
	}
	fetched := filepath.Join(tmp, "jars")

	say("fetching %s %s (%s) by Maven into %s\n", p.Name, p.Version, p.Size, jars)
	cmd := exec.CommandContext(ctx, mvn, "-B", "-q", copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory="+fetched)
	cmd.Dir = tmp
	// mvn is often a script around java: an interrupt has to end both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("fetch %s %s: %w", p.Name, p.Version, ctx.Err())
		}
		return "", fmt.Errorf("fetch %s %s by mvn: %w: check the network and Maven's settings.xml; it said:\n%s",
			p.Name, p.Version, err, process.Indent(process.LastLines(out, 15)))
	}
	itself := p.Dependencies[0]
	if _, err := os.Stat(filepath.Join(fetched, itself.Name+"-"+itself.Version+".jar")); err != nil {
		return "", fmt.Errorf("fetch %s %s: mvn ended well without its jar: %w", p.Name, p.Version, err)
	}
	// Only a whole set gets the name that is looked for. Where two processes fetch at once, the second keeps the first's.
	if err := os.Rename(fetched, jars); err != nil {
		if _, statErr := os.Stat(jars); statErr != nil {
			return "", fmt.Errorf("keep %s's jars: %w", p.Name, err)
		}
	}
	return jars, nil
}

var versionForm = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// Find returns a java that the program runs on: of JAVA_HOME where that is set, else of PATH.
func (p Program) Find(ctx context.Context) (string, error) {
	remedy := "install " + p.Get + ", such as by apt-get install openjdk-17-jdk-headless, and put it first in PATH or set JAVA_HOME"
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
		return "", fmt.Errorf("ask %s for its version: %w: %s; it said:\n%s", path, err, remedy, process.Indent(process.LastLines(out, 5)))
	}
	m := versionForm.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("ask %s for its version: no version in %q: %s", path, bytes.TrimSpace(out), remedy)
	}
	if major, _ := strconv.Atoi(string(m[1])); !p.Runs(major) {
		return "", fmt.Errorf("%s is Java %d, and %s %s runs on %s: %s", path, major, p.Name, p.Version, p.On, remedy)
	}
	return path, nil
}
