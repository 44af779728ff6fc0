package diagnose

import (
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestRunStopsAtTheFirstFailure(t *testing.T) {
	stages := func(cfg cassandra.Config) (names []string, last Finding) {
		for _, f := range Run(t.Context(), cfg, logrus.New()) {
			names, last = append(names, f.Stage), f
		}
		return names, last
	}
	names, last := stages(cassandra.Config{Settings: map[string]string{"CASSANDRA_HOSTS": "Contact points"}})
	require.Equal(t, []string{"tcp"}, names)
	require.Equal(t, Finding{"tcp", Error, "no contact points", "Set Contact points."}, last)
	names, last = stages(cassandra.Config{Hosts: []string{"127.0.0.1:1"}, ConnectTimeout: time.Second})
	require.Equal(t, []string{"tcp"}, names)
	require.Equal(t, Error, last.Status)
	require.Contains(t, last.Remedy, "native_transport_port")
}
