package app

import (
	"context"
	"fmt"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

type schemaCommands struct {
	Apply schemaApply `cmd:"" help:"Make what is missing of the keyspace and its tables; changes nothing that exists."`
	Check schemaCheck `cmd:"" help:"Name every table and column that is missing or different."`
}

type schemaApply struct{}

// Run implements the command.
func (schemaApply) Run(p *program) error {
	cfg, err := p.config.Store()
	if err != nil {
		return err
	}
	replication := p.config.Replication()
	err = p.patiently(p.config.CassandraConnectWait, func(ctx context.Context) error {
		return cassandra.ApplySchema(ctx, cfg, replication, p.logger)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "keyspace %s is in place (replication %s)\n", cfg.Keyspace, replication)
	return nil
}

type schemaCheck struct{}

// Run implements the command.
func (schemaCheck) Run(p *program) error {
	cfg, err := p.config.Store()
	if err != nil {
		return err
	}
	var differences []string
	err = p.patiently(p.config.CassandraConnectWait, func(ctx context.Context) (err error) {
		differences, err = cassandra.CheckSchema(ctx, cfg, p.config.Replication(), p.logger)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range differences {
		fmt.Fprintln(p.Out, d)
	}
	if len(differences) > 0 {
		return fmt.Errorf("keyspace %s: %d difference(s) from the schema", cfg.Keyspace, len(differences))
	}
	fmt.Fprintf(p.Out, "keyspace %s is as the schema says\n", cfg.Keyspace)
	return nil
}
