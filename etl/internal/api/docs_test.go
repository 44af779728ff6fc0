package api

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/dev/testenv"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
)

var docBlock = regexp.MustCompile("(?s)```(sh|json)\n(.*?)```")

// Runs each command of docs/iot-api.md as a reader would, and compares the response with the one in the document.
func TestDocsAreTrue(t *testing.T) {
	for _, program := range []string{"sh", "curl", "gzip", "sha256sum", "base32"} {
		testenv.Program(t, testenv.Tools, "curl gzip coreutils", program)
	}
	text, err := os.ReadFile("../../../docs/iot-api.md")
	require.NoError(t, err)
	blocks := docBlock.FindAllStringSubmatch(string(text), -1)
	dir := t.TempDir()
	shell := func(script string, env ...string) string {
		t.Helper()
		cmd := exec.Command("sh", "-c", "set -e\n"+script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		require.NoError(t, err, "%s: %s", script, said.String())
		return string(out)
	}

	require.Contains(t, blocks[0][2], "TOKEN=")
	token := shell(blocks[0][2] + `printf %s "$TOKEN"`)
	tokens, err := auth.Load(filepath.Join(dir, "tokens"))
	require.NoError(t, err)
	r := start(t, func(o *settings) { o.server.Tokens = tokens })

	ran := 0
	routes := map[string]bool{}
	for i, b := range blocks[1:] {
		if b[1] != "sh" {
			continue
		}
		require.Contains(t, b[2], "http://localhost:8080")
		got := shell(strings.ReplaceAll(b[2], "http://localhost:8080", r.url), "TOKEN="+token)
		require.Equal(t, "json", blocks[i+2][1], "each command is followed by its response")
		require.JSONEq(t, blocks[i+2][2], got, b[2])
		ran++
		for _, path := range []string{"/v1/telemetry", "/?", "/v1/osmand/", "/v1/owntracks"} {
			if strings.Contains(b[2], "8080"+path) {
				routes[path] = true
			}
		}
	}
	require.GreaterOrEqual(t, ran, 8)
	require.Len(t, routes, 4, "every route has a command")
	items, rejected := r.arrived(11)
	devices := map[string]bool{}
	for _, item := range items {
		devices[item.DeviceID] = true
		require.Equal(t, "wuxi", item.FleetID)
	}
	for _, device := range []string{"truck-17", "truck-18", "van-3", "358240051111110", "358240051111111", "48241179", "jane:phone"} {
		require.True(t, devices[device], device)
	}
	require.Len(t, rejected, 2)
}
