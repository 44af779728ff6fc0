package metrics

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// An agent with invalid rules keeps its node from starting.
func TestRulesAreValidYAML(t *testing.T) {
	var config struct {
		Rules []struct{ Pattern, Name, Type, Help string }
	}
	require.NoError(t, yaml.Unmarshal([]byte(Rules), &config))
	require.NotEmpty(t, config.Rules)
	for _, rule := range config.Rules {
		require.NotEmpty(t, rule.Help, rule.Name)
	}
}
