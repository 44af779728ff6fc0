package deadletter

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

type sink struct{ sources []string }

func (s *sink) Append(_ context.Context, source, _ string, _ []pipeline.Rejected) error {
	s.sources = append(s.sources, source)
	return nil
}

func TestRouteSendsEachSourceToItsPlace(t *testing.T) {
	var topic, file sink
	r := Route{BySource: map[string]pipeline.DeadLetters{"kafka": &topic}, Default: &file}
	for _, source := range []string{"csvfile", "kafka", "api"} {
		require.NoError(t, r.Append(t.Context(), source, "", nil))
	}
	require.True(t, slices.Equal(topic.sources, []string{"kafka"}), topic.sources)
	require.True(t, slices.Equal(file.sources, []string{"csvfile", "api"}), file.sources)
}
