// Package java finds a suitable version of Java, and downloads the jars of a program with Maven, once per user.
package java

import (
	"bytes"
	"context"
	_ "embed" // of pom.xml
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/template"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Program is a Java program with its jars.
type Program struct {
	Name         string
	Version      string
	Dependencies []Artifact // the first one is the program itself

	Runs func(major int) bool // reports whether the program runs on a version of Java
	On   string               // the versions for messages, such as 17 and newer
}

// Artifact is a jar in a Maven repository.
type Artifact struct{ Group, Name, Version string }

const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

//go:embed pom.xml.tmpl
var pomText string

// pom is a Maven project with the dependencies of a Program.
var pom = template.Must(template.New("pom.xml").Parse(pomText))

// Jars returns the directory with the jars. The first time, Maven downloads them with the settings of the user, and printf receives a
// message.
func (p Program) Jars(ctx context.Context, printf func(format string, args ...any)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	jars := filepath.Join(cache, "fleet-tracing", strings.ToLower(p.Name)+"-"+p.Version)
	err = process.Install(jars, func(tmp, content string) error {
		printf("downloading %s %s by Maven into %s", p.Name, p.Version, jars)
		return p.download(ctx, tmp, content)
	})
	if err != nil {
		return "", fmt.Errorf("download %s %s: %w", p.Name, p.Version, err)
	}
	return jars, nil
}

func (p Program) download(ctx context.Context, tmp, jars string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return fmt.Errorf("find mvn: %w: install Maven, for example by apt-get install maven", err)
	}
	var project bytes.Buffer
	if err := pom.Execute(&project, p); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), project.Bytes(), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mvn, "-B", "-q", copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory="+jars)
	cmd.Dir = tmp
	// mvn is a script that runs java: an interrupt must end both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: check the network and settings.xml of Maven; output of mvn:\n%s", err, process.Indent(process.LastLines(out, 15)))
	}
	main := p.Dependencies[0]
	if _, err := os.Stat(filepath.Join(jars, main.Name+"-"+main.Version+".jar")); err != nil {
		return fmt.Errorf("mvn succeeded, but the jar is missing: %w", err)
	}
	return nil
}

var versionForm = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// Find returns the java of JAVA_HOME, if that is set, else of PATH. It fails if the program does not run on its version.
func (p Program) Find(ctx context.Context) (string, error) {
	remedy := "install Java 17, for example by apt-get install openjdk-17-jdk-headless, and put it first in PATH or set JAVA_HOME"
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
		return "", fmt.Errorf("read the version of %s: %w: %s; output:\n%s", path, err, remedy, process.Indent(process.LastLines(out, 5)))
	}
	m := versionForm.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("read the version of %s: no version in %q: %s", path, bytes.TrimSpace(out), remedy)
	}
	if major, _ := strconv.Atoi(string(m[1])); !p.Runs(major) {
		return "", fmt.Errorf("%s is Java %d, and %s %s runs on %s: %s", path, major, p.Name, p.Version, p.On, remedy)
	}
	return path, nil
}
