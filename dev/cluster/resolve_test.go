package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// useProgram puts a shell script of this name into an otherwise empty PATH, and the cache into a directory of its own.
func useProgram(t *testing.T, name, script string) {
	t.Helper()
	bin := t.TempDir()
	if name != "" {
		do(t, "write", os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755))
	}
	t.Setenv("PATH", bin)
	t.Setenv("JAVA_HOME", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

func TestJavaVersionIsChecked(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"17":    {`echo 'openjdk version "17.0.15" 2025-04-15' >&2`, ""},
		"11":    {`echo 'openjdk version "11.0.2" 2019-01-15' >&2`, ""},
		"8":     {`echo 'java version "1.8.0_292"' >&2`, "is Java 8, and Cassandra 5.0.9 runs on 17"},
		"21":    {`echo 'openjdk version "21-ea" 2023-09-19' >&2`, "is Java 21"},
		"mute":  {`exit 0`, "no version"},
		"wrong": {`echo 'no such VM'; exit 2`, "no such VM"},
	} {
		t.Run(name, func(t *testing.T) {
			useProgram(t, "java", tc.script)
			_, err := program.Find(t.Context())
			if tc.want == "" {
				do(t, "resolve", err)
				return
			}
			wantError(t, err, tc.want, "apt-get install openjdk-17-jdk-headless")
		})
	}
	t.Run("none", func(t *testing.T) {
		useProgram(t, "", "")
		_, err := program.Find(t.Context())
		wantError(t, err, "find java", "apt-get install openjdk-17-jdk-headless")
	})
}

// mvnScript copies nothing but the one jar that is looked for, after a while in which another may do the same.
var mvnScript = fmt.Sprintf(`
for a; do case $a in -DoutputDirectory=*) dir=${a#*=};; esac; done
/bin/mkdir "$dir" && /bin/sleep 0.3 && : > "$dir/cassandra-all-%s.jar"
`, cassandraVersion)

func TestConcurrentDownloadsKeepOne(t *testing.T) {
	useProgram(t, "mvn", mvnScript)
	c, out := open(t, Config{})
	results := make(chan error)
	for range 2 {
		go func() {
			jars, err := program.Jars(context.Background(), c.printf)
			if err == nil {
				_, err = os.Stat(filepath.Join(jars, "cassandra-all-"+cassandraVersion+".jar"))
			}
			results <- err
		}()
	}
	do(t, "resolve", errors.Join(<-results, <-results))
	wantCache(t, "cassandra-"+cassandraVersion)

	said := out.String()
	_, err := program.Jars(t.Context(), c.printf)
	do(t, "resolve again", err)
	if out.String() != said {
		t.Errorf("fetched again: %s", out)
	}
}

func TestFailedDownloadLeavesNothing(t *testing.T) {
	t.Run("interrupted", func(t *testing.T) {
		useProgram(t, "mvn", mvnScript)
		c, _ := open(t, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 2*process.PollEvery)
		defer cancel()
		if _, err := program.Jars(ctx, c.printf); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline's", err)
		}
		wantCache(t)
	})
	t.Run("failed", func(t *testing.T) {
		useProgram(t, "mvn", mvnScript+"echo no route to host; exit 1")
		c, _ := open(t, Config{})
		_, err := program.Jars(t.Context(), c.printf)
		wantError(t, err, "no route to host", "check the network")
		wantCache(t)
	})
	t.Run("no mvn", func(t *testing.T) {
		useProgram(t, "", "")
		c, _ := open(t, Config{})
		_, err := program.Jars(t.Context(), c.printf)
		wantError(t, err, "find mvn", "apt-get install maven")
	})
}

func wantCache(t *testing.T, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "fleet-tracing"))
	do(t, "read the cache", err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the cache holds %q, want %q", got, want)
	}
}
