package bench

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFleetETLLinksNoBenchmarkCode(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/fleettracing/fleet-tracing/etl").CombinedOutput()
	require.NoError(t, err, string(out))
	for path := range strings.Lines(string(out)) {
		for _, tool := range []string{"gonum.org/", "github.com/fleettracing/fleet-tracing/dev/"} {
			assert.NotContains(t, path, tool)
		}
	}
}
