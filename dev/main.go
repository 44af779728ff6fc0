// Command dev runs the tools for developers of Fleet Tracing as local processes, without Docker.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/fleettracing/fleet-tracing/dev/cluster"
	"github.com/fleettracing/fleet-tracing/dev/demo"
	"github.com/fleettracing/fleet-tracing/dev/kafka"
	"github.com/fleettracing/fleet-tracing/dev/report"
)

type cli struct {
	Settings settings `embed:""`

	Cluster     clusterCmd     `cmd:"" help:"Run a Cassandra cluster as local processes."`
	Demo        demoCmd        `cmd:"" help:"Run the whole platform: Cassandra, a streaming fleet-etl and, if installed, Prometheus, Alertmanager and Grafana. Ctrl-C stops it."`
	Down        demoDownCmd    `cmd:"" help:"Stop the demo, or what is left of an earlier one."`
	WithCluster withClusterCmd `cmd:"" help:"Run a command while a cluster is up. Start the cluster if it is down, and stop it again."`
	Kafka       kafkaCmd       `cmd:"" help:"Run a Kafka broker as a local process."`
	WithKafka   withKafkaCmd   `cmd:"" help:"Run a command while a Kafka broker is up. Start the broker if it is down, and stop it again."`
	Bench       benchCmds      `cmd:"" help:"Measure fleet-etl on clusters that the command starts and removes."`
	Report      reportCmd      `cmd:"" help:"Render docs/performance.md, resilience.md and architecture.md into one PDF. Needs Chromium and npm."`
	Queries     queriesCmd     `cmd:"" help:"Fill a keyspace with 30 days of 10,000 vehicles, run every CQL statement on it, and write the cost of each."`
	Chaos       chaosCmd       `cmd:"" help:"Inject faults into a running platform, one after the other, and check the outcome."`
}

// repository is the root of the repository.
type repository string

func findRepository() (repository, error) {
	root, err := cluster.RepositoryRoot()
	return repository(root), err
}

func (r repository) path(parts ...string) string {
	return filepath.Join(append([]string{string(r)}, parts...)...)
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var c cli
	k := kong.Parse(&c, kong.Name("dev"), kong.ShortUsageOnError(),
		kong.Description("Runs the tools for developers of Fleet Tracing as local processes, without Docker."),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&c.Settings), kong.BindToProvider(findRepository),
		kong.BindToProvider(func() (*cluster.Cluster, error) { return c.Settings.open(os.Stdout) }),
		kong.BindToProvider(func() (*kafka.Broker, error) { return kafka.Open(os.Stdout) }))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		return 1
	}
	return 0
}

type demoCmd struct{}

func (demoCmd) Run(ctx context.Context, c *cluster.Cluster, root repository) error {
	return demo.New(string(root), c, os.Stdout).Run(ctx)
}

type demoDownCmd struct{}

func (demoDownCmd) Run(ctx context.Context, c *cluster.Cluster, root repository) error {
	return demo.New(string(root), c, os.Stdout).Down(ctx)
}

type reportCmd struct {
	Out string `short:"o" default:"report.pdf" help:"The file to write."`
}

func (cmd reportCmd) Run(ctx context.Context, root repository) error {
	if err := report.Render(ctx, string(root), report.Pages, cmd.Out); err != nil {
		return err
	}
	fmt.Println("report in", cmd.Out)
	return nil
}
