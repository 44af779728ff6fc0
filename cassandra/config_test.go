package cassandra

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseReplication(t *testing.T) {
	r, err := ParseReplication("dc2=2, dc1=3")
	require.NoError(t, err)
	require.Equal(t, Replication{"dc1": 3, "dc2": 2}, r)
	require.Equal(t, "dc1=3,dc2=2", r.String())
	for _, bad := range []string{"", "dc1", "dc1=", "dc1=0", "dc1=x", "=2", "dc1=1,dc1=2", "dc1'=1"} {
		_, err := ParseReplication(bad)
		require.Error(t, err, bad)
	}
}
