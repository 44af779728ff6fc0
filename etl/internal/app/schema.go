package app

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/cassandra/schema"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
)

type schemaCommands struct {
	Init  schemaInit  `cmd:"" help:"Set up a new cluster with password authentication: administrator, keyspace, tables and roles. Idempotent."`
	Apply schemaApply `cmd:"" help:"Create the missing keyspace, tables and columns, and reset compaction and gc_grace_seconds to the schema's values."`
	Check schemaCheck `cmd:"" help:"Print every missing or different table and column."`
}

// schemaInit authenticates as CASSANDRA_USERNAME, which becomes the administrator.
type schemaInit struct {
	Writer         string `default:"fleet_writer" help:"Role of fleet-etl; it may read and modify rows."`
	WriterPassword string `name:"writer-password-file" required:"" placeholder:"FILE" help:"File with the password of the role."`
	Reader         string `default:"fleet_reader" help:"Role of dashboards; it may only read."`
	ReaderPassword string `name:"reader-password-file" required:"" placeholder:"FILE" help:"File with the password of the role."`
}

// Run implements the command.
func (c *schemaInit) Run(p *program) error {
	cfg, wanted, err := p.schemaSettings()
	if err != nil {
		return err
	}
	roles := []schema.Role{{Name: c.Writer, Writes: true}, {Name: c.Reader}}
	for i, path := range []string{c.WriterPassword, c.ReaderPassword} {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("password of %s: %w", roles[i].Name, err)
		}
		roles[i].Password = strings.TrimRight(string(text), "\r\n")
	}
	// A new cluster creates its first superuser some seconds after it accepts connections, and may still wait for a node.
	for started := time.Now(); ; _ = backoff.Sleep(p.stop, 5*time.Second) {
		err := schema.MakeAdministrator(p.stop, cfg, wanted, p.logger)
		if err == nil {
			break
		}
		if p.stop.Err() != nil || time.Since(started) > p.config.CassandraConnectWait {
			return fmt.Errorf("%w (gave up after %s, CASSANDRA_CONNECT_WAIT)", err, p.config.CassandraConnectWait)
		}
		p.logger.WithError(err).Warn("cluster is not ready for set-up, retrying")
	}
	if err := (schemaApply{}).Run(p); err != nil {
		return err
	}
	if err := p.retryUntilUp(func(ctx context.Context) error { return schema.ApplyRoles(ctx, cfg, roles, p.logger) }); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "created roles %s (read and write) and %s (read); administrator %s\n", c.Writer, c.Reader, cfg.Username)
	return nil
}

type schemaApply struct{}

// Run implements the command.
func (schemaApply) Run(p *program) error {
	cfg, wanted, err := p.schemaSettings()
	if err != nil {
		return err
	}
	if err := p.retryUntilUp(func(ctx context.Context) error { return schema.Apply(ctx, cfg, wanted, p.logger) }); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "keyspace %s is up to date (replication %s)\n", cfg.Keyspace, wanted)
	return nil
}

type schemaCheck struct{}

// Run implements the command.
func (schemaCheck) Run(p *program) error {
	cfg, wanted, err := p.schemaSettings()
	if err != nil {
		return err
	}
	var differences []string
	if err := p.retryUntilUp(func(ctx context.Context) (err error) {
		differences, err = schema.Check(ctx, cfg, wanted, p.logger)
		return err
	}); err != nil {
		return err
	}
	for _, d := range differences {
		fmt.Fprintln(p.Out, d)
	}
	if len(differences) > 0 {
		return fmt.Errorf("keyspace %s: %d difference(s) from the schema", cfg.Keyspace, len(differences))
	}
	fmt.Fprintf(p.Out, "keyspace %s matches the schema\n", cfg.Keyspace)
	return nil
}

// schemaSettings returns how to reach the cluster, and the replication that the keyspace is to have.
func (p *program) schemaSettings() (cfg cassandra.Config, wanted cassandra.Replication, err error) {
	if wanted, err = cassandra.ParseReplication(p.config.CassandraReplication); err != nil {
		return cfg, nil, fmt.Errorf("CASSANDRA_REPLICATION: %w", err)
	}
	cfg, err = cassandraConfig(p.config)
	return cfg, wanted, err
}
