package chaos

import (
	"context"
	"errors"
	"os"
	"time"
)

// fencedAlerts may fire when an instance is fenced, and then killed.
var fencedAlerts = []string{"FleetInstanceFenced", "FleetProcessRestarting", "FleetTargetDown", "FleetPipelineStalled", "FleetCassandraUnavailable", "FleetRollupLate"}

// faults in the order of their injection. The most destructive ones come last.
var faults = []fault{
	{
		name: "etl-killed", title: "fleet-etl killed at random points", forms: inShort | inLong,
		injects: "`kill -9` of `fleet-etl run` several times, each time 0.2 to 2.5 s after its start",
		allowed: []string{"FleetProcessRestarting", "FleetTargetDown", "FleetPipelineStalled", "FleetCassandraUnavailable", "FleetRollupLate"},
		inject:  killETL,
	},
	{
		name: "load-killed", title: "A load of a file killed at random points", forms: inLong,
		injects: "`kill -9` of `fleet-etl load` of 12,000 records several times, beside an undisturbed `run`; then the same command once more, to its end",
		inject:  killLoad,
		heal:    finishLoad,
	},
	{
		name: "paused", title: "An instance paused, taken over and killed", forms: inLong,
		injects: "a second `fleet-etl run` that receives the load; SIGSTOP of it for 45 s, longer than the takeover time; SIGCONT, and 20 s later `kill -9`; " +
			"started again",
		allowed: fencedAlerts,
		lasts:   pause, inject: pausePeer, heal: resumePeer,
	},
	{
		name: "paused-10m", title: "An instance paused for ten minutes",
		injects: "as `paused`, for ten minutes",
		allowed: fencedAlerts,
		lasts:   10 * time.Minute, inject: pausePeer, heal: resumePeer,
	},
	{
		name: "route-lost", title: "An instance without a route to Cassandra", forms: inLong,
		injects: "a second `fleet-etl run` that receives the load; no packet of it reaches Cassandra for 45 s, longer than the takeover time; 20 s later " +
			"`kill -9`; started again",
		needs:   needsNetwork,
		allowed: fencedAlerts,
		lasts:   pause, inject: cutPeer, heal: reconnectPeer,
	},
	{
		name: "poison", title: "Poison records", forms: inShort | inLong,
		injects: "eight invalid lines in every request, each rejected for another reason, and requests that cannot be parsed",
		allowed: []string{"FleetRejectsHigh"},
		inject:  sendPoison, heal: checkPoison,
	},
	{
		name: "alertmanager-down", title: "Alertmanager down", forms: inLong,
		injects:  "Alertmanager killed; a vehicle starts to speed meanwhile; Alertmanager started again",
		expected: []alert{"FleetVehicleSpeedLimit{device=chaos-alertmanager-down-001}"}, late: true,
		allowed: []string{"FleetNotificationsFailing", "FleetTargetDown", "FleetMonitoringNotificationsFailing"},
		lasts:   20 * time.Second, inject: killAlertmanager, heal: restartAlertmanager,
	},
	{
		name: "prometheus-down", title: "Prometheus and a node down", forms: inLong,
		injects:  "Prometheus killed; a node killed meanwhile; Prometheus started again and, after the alert, the node",
		expected: []alert{"CassandraNodeDown{node=cassandra-dc2-node2}"},
		allowed:  nodeAlerts,
		inject:   restartPrometheus, heal: startNodes,
	},
	{
		// The long form has a node killed in prometheus-down.
		name: "node-killed", title: "A node killed", forms: inShort,
		injects:  "`kill -9` of a node of the local data center; started again after the alert",
		expected: []alert{"CassandraNodeDown{node=cassandra-dc1-node2}"},
		allowed:  nodeAlerts,
		lasts:    10 * time.Second, inject: killNodes(2), heal: startNodes,
	},
	{
		name: "node-paused", title: "A node paused", forms: inShort | inLong,
		injects:  "SIGSTOP of a node of the local data center, which keeps its connections open; SIGCONT after the alert",
		expected: []alert{"CassandraNodeDown{node=cassandra-dc1-node1}"},
		allowed:  nodeAlerts,
		lasts:    15 * time.Second,
		inject:   func(ctx context.Context, s *scenario) error { return s.Cluster.Pause(ctx, 1) },
		heal:     func(ctx context.Context, s *scenario) error { return s.Cluster.Resume(context.WithoutCancel(ctx), 1) },
	},
	{
		name: "schema-changed", title: "Schema changed under load", forms: inLong,
		injects: "a column added to the tables of the history and the latest positions, a table created and dropped, and the columns dropped again",
		lasts:   10 * time.Second, inject: addColumns, heal: dropColumns,
	},
	{
		name: "truncated", title: "Tables truncated under load", forms: inLong,
		injects: "`TRUNCATE` of the history and the latest positions; afterwards `fleet-etl verify --fix`",
		repair:  true,
		lasts:   5 * time.Second, inject: truncate,
	},
	{
		name: "clock-jumps", title: "The clock jumps", forms: inLong,
		injects: "the clock of `fleet-etl` set back by 45 minutes for 15 s, so that records come from the future; right again; 45 minutes ahead for 15 s; " +
			"`kill -9`, and right again. The rejected records are reprocessed",
		allowed: []string{"FleetClockWrong", "FleetRejectsHigh", "FleetPipelineStalled", "FleetCanaryFailing", "FleetRollupLate", "FleetProcessRestarting", "FleetSpoolGrowing", "FleetTargetDown"},
		inject:  moveClock, heal: setClockRight,
	},
	{
		name: "link-slow", title: "Slow network between the data centers", forms: inLong,
		injects: "every packet between the data centers is delayed by 50 ± 10 ms each way, 1 % are lost, and at most 1 MB/s pass",
		allowed: append([]string{"CassandraPeerUnreachable"}, nodeAlerts...),
		needs:   needsNetwork,
		lasts:   30 * time.Second,
		inject: func(_ context.Context, s *scenario) error {
			s.Tunnel.slow.Store(&slowness{delay: 50 * time.Millisecond, jitter: 10 * time.Millisecond, loss: 0.01, bytesPerSecond: 1 << 20})
			return nil
		},
		heal: func(_ context.Context, s *scenario) error { s.Tunnel.slow.Store(nil); return nil },
	},
	{
		name: "disk-full", title: "A node with a full disk", forms: inLong,
		injects:  "a file fills the small file system of a node to the last byte, and nodetool flushes the node; then the file is removed and the node started again",
		expected: []alert{"CassandraNodeDown{node=cassandra-dc2-node2}"},
		allowed:  append([]string{"CassandraPeerUnreachable"}, nodeAlerts...),
		needs: func(o Options) error {
			if o.Disk == "" {
				return errors.New("it needs root, to mount a small file system for a node")
			}
			return nil
		},
		lasts: 20 * time.Second, inject: fillDisk, heal: freeDisk,
	},
	{
		name: "dc-down", title: "A data center down", forms: inLong,
		injects:  "`kill -9` of both nodes of the local data center; started again after the alert",
		expected: []alert{"CassandraNodesDown{dc=dc1}"},
		allowed:  nodeAlerts,
		lasts:    15 * time.Second, inject: killNodes(1, 2), heal: startNodes,
	},
	{
		name: "all-restarted", title: "All nodes killed and started again", forms: inLong,
		injects:  "`kill -9` of all four nodes; started again after the alerts",
		expected: []alert{"FleetCassandraUnavailable", "CassandraNodesDown{dc=dc1}", "CassandraNodesDown{dc=dc2}"},
		allowed:  append([]string{"FleetSpoolGrowing"}, nodeAlerts...),
		lasts:    15 * time.Second, inject: killNodes(1, 2, 3, 4), heal: startNodes,
	},
	{
		name: "hostile-tenant", title: "A fleet that means harm", forms: inLong,
		injects: "beside the load, and with a token of its own fleet: records of the load's devices, at the same instants and 290 s ahead; 8 KB of gzip that are " +
			"8 MB of rejected lines; 10,000 new devices twice per second, with records that are 29 days old, and with alerts that open and close; 64 large reads in " +
			"parallel; 200 idle connections and slow bodies. The memory of fleet-etl is limited to 512 MB",
		allowed: []string{"FleetWrongFleet", "FleetLimitReached", "FleetRejectsHigh", "FleetApiMemoryFull", "FleetSpoolGrowing", "FleetQueueFull", "FleetRollupLate"},
		inject:  beHostile, heal: leaveTenant, check: checkTenant, memory: tenantMemory,
	},
}

// nodeAlerts may fire while nodes are down for long, or start again.
var nodeAlerts = []string{
	"CassandraNodeDown", "CassandraNodesDown", "CassandraClientTimeouts", "CassandraClientUnavailables", "CassandraDroppedMutations", "CassandraHintsGrowing",
	"CassandraPeerUnreachable", "FleetCanaryFailing", "FleetPipelineStalled", "FleetQueueFull", "FleetRollupLate", "FleetCassandraUnavailable",
}

func needsNetwork(o Options) error {
	if o.Tunnel == nil {
		return errors.New("it needs root and TUN devices, to give each data center its own network")
	}
	return nil
}

// isRoot reports whether file systems can be mounted and networks created.
func isRoot() bool { return os.Geteuid() == 0 }
