package chaos

import "errors"

// faults are all that is tried, in order: what breaks most comes last.
var faults = []fault{
	{
		name: "etl-killed", title: "fleet-etl killed at random points", short: true,
		does: "`kill -9` of `fleet-etl run` again and again, each time between 0.2 and 2.5 s after its start",
		may:  []string{"FleetProcessRestarting", "FleetTargetDown", "FleetPipelineStalled", "FleetStoreAway", "FleetRollupLate"},
		run:  etlKilled,
	},
	{
		name: "load-killed", title: "A load of a file killed at random points",
		does: "`kill -9` of `fleet-etl load` of 12,000 records again and again, beside a `run` that is left alone; then the same command once more to its end",
		run:  loadKilled,
	},
	{
		name: "poison", title: "Poison records", short: true,
		does: "eight lines that make no sense in every request, each refused for another reason, and requests that can't be read at all",
		may:  []string{"FleetRejectsHigh"},
		run:  poison,
	},
	{
		name: "alertmanager-away", title: "Alertmanager away",
		does: "Alertmanager killed; a vehicle begins to drive too fast while it is away; then started again",
		must: []wanted{"FleetVehicleSpeedLimit{device=chaos-alertmanager-away-001}"},
		may:  []string{"FleetNotificationsFailing", "FleetTargetDown", "FleetMonitoringNotificationsFailing"},
		run:  alertmanagerAway,
	},
	{
		name: "prometheus-away", title: "Prometheus away",
		does: "Prometheus killed; a node killed while it is away; Prometheus started again, and when people have heard of the node, the node too",
		must: []wanted{"CassandraNodeDown{node=cassandra-dc2-node2}"},
		may:  nodeTrouble,
		run:  prometheusAway,
	},
	{
		name: "node-killed", title: "A node killed", short: true,
		does: "`kill -9` of a node of the local data centre; started again when people have heard of it",
		must: []wanted{"CassandraNodeDown{node=cassandra-dc1-node2}"},
		may:  nodeTrouble,
		run:  nodeKilled,
	},
	{
		name: "node-stopped", title: "A node stopped and continued", short: true,
		does: "SIGSTOP of a node of the local data centre, whose connections stay open; SIGCONT when people have heard of it",
		must: []wanted{"CassandraNodeDown{node=cassandra-dc1-node1}"},
		may:  nodeTrouble,
		run:  nodeStopped,
	},
	{
		name: "schema-changed", title: "Schema changed under load",
		does: "a column added to the tables of history and of latest fixes, a table made and dropped, and the columns dropped again",
		run:  schemaChanged,
	},
	{
		name: "truncated", title: "Tables truncated under load",
		does: "`TRUNCATE` of the history and the latest fixes; afterwards `fleet-etl verify --fix`",
		fix:  true,
		run:  truncated,
	},
	{
		name: "clock-jumps", title: "The clock jumps",
		does:    "the clock of `fleet-etl` 45 minutes back for 15 s, so that records come from the future; right again; 45 minutes ahead for 15 s; right again. What was refused is replayed",
		may:     []string{"FleetRejectsHigh", "FleetPipelineStalled", "FleetCanaryFailing", "FleetRollupLate", "FleetProcessRestarting", "FleetTargetDown"},
		prepare: buildWithClock,
		run:     clockJumps,
	},
	{
		name: "link-slow", title: "Slow network between the data centres",
		does: "every packet between the data centres takes 50 ± 10 ms each way, 1 % are lost, at most 1 MB/s pass",
		may:  append([]string{"CassandraPeerUnreachable"}, nodeTrouble...),
		needs: func(o Options) error {
			if o.Link == nil {
				return errors.New("it needs root, to give each data centre a network of its own: run it as root with --network")
			}
			return nil
		},
		run: linkSlow,
	},
	{
		name: "disk-full", title: "A node with a full disk",
		does: "a file fills the small file system of a node to its last byte, and the node is told to flush; then the file goes and the node is started again",
		must: []wanted{"CassandraNodeDown{node=cassandra-dc2-node2}"},
		may:  append([]string{"CassandraPeerUnreachable"}, nodeTrouble...),
		needs: func(o Options) error {
			if o.Disk == "" {
				return errors.New("it needs root, to mount a small file system for a node: run it as root")
			}
			return nil
		},
		run: diskFull,
	},
	{
		name: "dc-away", title: "A data centre away and back",
		does: "`kill -9` of both nodes of the local data centre; started again when people have heard of it",
		must: []wanted{"CassandraNodesDown{dc=dc1}"},
		may:  nodeTrouble,
		run:  dcAway,
	},
	{
		name: "all-restarted", title: "All nodes killed and started again",
		does: "`kill -9` of all four nodes; started again when people have heard of it",
		must: []wanted{"FleetStoreAway", "CassandraNodesDown{dc=dc1}", "CassandraNodesDown{dc=dc2}"},
		may:  append([]string{"FleetSpoolGrowing"}, nodeTrouble...),
		run:  allRestarted,
	},
}

// nodeTrouble is what people may hear of beside, when nodes are away for longer than a rule's patience, or come back.
var nodeTrouble = []string{
	"CassandraNodeDown", "CassandraNodesDown", "CassandraClientTimeouts", "CassandraClientUnavailables", "CassandraDroppedMutations", "CassandraHintsGrowing",
	"CassandraPeerUnreachable", "FleetCanaryFailing", "FleetPipelineStalled", "FleetQueueFull", "FleetRollupLate", "FleetStoreAway",
}
