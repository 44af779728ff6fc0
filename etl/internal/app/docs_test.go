package app

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

var inDocs = regexp.MustCompile("(?m)(?:`|^(?:\\s|\\$ |[A-Z_]+=\\S+ )*)(?:bin/)?fleet-etl ([a-z][a-z-]*)(?: ([a-z]+))?")

// Every command of fleet-etl that the documentation names is there.
func TestCommandsOfTheDocumentation(t *testing.T) {
	parser, err := kong.New(&commands{})
	require.NoError(t, err)
	child := func(n *kong.Node, name string) *kong.Node {
		i := slices.IndexFunc(n.Children, func(c *kong.Node) bool { return c.Name == name })
		if i < 0 {
			return nil
		}
		return n.Children[i]
	}
	found := 0
	for _, pattern := range []string{"../../../*.md", "../../../docs/*.md", "../../../docs/runbooks/*.md"} {
		pages, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, page := range pages {
			text, err := os.ReadFile(page)
			require.NoError(t, err)
			for _, m := range inDocs.FindAllStringSubmatch(string(text), -1) {
				found++
				command := child(parser.Model.Node, m[1])
				if command == nil || len(command.Children) > 0 && m[2] != "" && child(command, m[2]) == nil {
					t.Errorf("%s: %s: there is no such command", page, m[0])
				}
			}
		}
	}
	require.Greater(t, found, 20)
}
