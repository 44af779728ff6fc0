package schema

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// Role is a login that may read the keyspace and, if Writes is set, change its rows. It may not change the schema or
// other roles.
type Role struct {
	Name, Password string
	Writes         bool
}

// The default superuser of a new cluster with password authentication.
const defaultSuperuser, defaultSuperuserPassword = "cassandra", "cassandra"

// MakeAdministrator makes the user of cfg the superuser of a cluster with password authentication. It replicates logins
// like the keyspace and disables Cassandra's default superuser. It can be repeated at any time. All nodes must be up.
func MakeAdministrator(ctx context.Context, cfg cassandra.Config, replication cassandra.Replication, logger logrus.FieldLogger) error {
	admin := Role{Name: cfg.Username, Password: cfg.Password}
	if err := admin.check(); err != nil {
		return err
	}
	if admin.Name == defaultSuperuser {
		return fmt.Errorf("user %q (%s): this is the default superuser; choose another name for the administrator", admin.Name, cfg.Setting("CASSANDRA_USERNAME"))
	}
	first := cfg
	first.Username, first.Password = defaultSuperuser, defaultSuperuserPassword
	open, err := connect(ctx, first, "", logger)
	switch {
	case err == nil:
		defer open.Close()
		if err := checkReplicas(ctx, open, replication); err != nil {
			return err
		}
		// First, so that every role is stored on all replicas from the start and needs no repair.
		if err := open.Exec(ctx, "ALTER KEYSPACE system_auth\nWITH replication = "+replication.CQL()); err != nil {
			return err
		}
		if err := admin.apply(ctx, open, cfg, "SUPERUSER = true AND ", logger); err != nil {
			return err
		}
	case cassandra.ReasonOf(err) != cassandra.ReasonUnauthorized:
		return err
	}
	session, err := connect(ctx, cfg, "", logger)
	if cassandra.ReasonOf(err) == cassandra.ReasonUnauthorized {
		return fmt.Errorf("log in as %s (%s): wrong password, and the default superuser is disabled already; use the password that was set when the cluster was created: %w",
			admin.Name, cfg.Setting("CASSANDRA_PASSWORD"), err)
	}
	if err != nil {
		return err
	}
	defer session.Close()
	if open == nil {
		return nil // the default superuser is disabled already
	}
	return session.Exec(ctx, fmt.Sprintf("ALTER ROLE %s\nWITH PASSWORD = %s AND LOGIN = false", defaultSuperuser, quoted(rand.Text())))
}

// apply creates the role and ensures that it can log in. It sets a changed password only: Cassandra accepts a new one at
// most every five seconds.
func (r Role) apply(ctx context.Context, session *cassandra.Admin, cfg cassandra.Config, options string, logger logrus.FieldLogger) error {
	with := fmt.Sprintf(" %s\nWITH %sLOGIN = true AND PASSWORD = %s", r.Name, options, quoted(r.Password))
	if err := session.Exec(ctx, "CREATE ROLE IF NOT EXISTS"+with); err != nil {
		return err
	}
	cfg.Username, cfg.Password = r.Name, r.Password
	own, err := connect(ctx, cfg, "", logger)
	if err == nil {
		own.Close()
		return nil
	}
	if cassandra.ReasonOf(err) != cassandra.ReasonUnauthorized {
		return err
	}
	return session.Exec(ctx, "ALTER ROLE"+with)
}

// ApplyRoles creates the roles, sets their passwords, and grants their permissions on the keyspace. cfg has the login of
// an administrator. It can be repeated at any time. All nodes must be up.
func ApplyRoles(ctx context.Context, cfg cassandra.Config, roles []Role, logger logrus.FieldLogger) error {
	for _, r := range roles {
		if err := r.check(); err != nil {
			return err
		}
	}
	session, err := connect(ctx, cfg, "", logger)
	if err != nil {
		return err
	}
	defer session.Close()
	for _, r := range roles {
		if err := r.apply(ctx, session, cfg, "", logger); err != nil {
			return err
		}
		if err := session.Exec(ctx, r.rights(cfg.Keyspace)...); err != nil {
			return err
		}
	}
	return nil
}

func (r Role) check() error {
	if !validName.MatchString(r.Name) {
		return fmt.Errorf("role %q: use 1 to 48 characters of a-z0-9_, a letter first", r.Name)
	}
	if r.Password == "" {
		return fmt.Errorf("role %s: the password is empty", r.Name)
	}
	return nil
}

func (r Role) rights(keyspace string) []string {
	statements := []string{fmt.Sprintf("GRANT SELECT ON KEYSPACE %s TO %s", keyspace, r.Name)}
	if r.Writes {
		statements = append(statements, fmt.Sprintf("GRANT MODIFY ON KEYSPACE %s TO %s", keyspace, r.Name))
	}
	return statements
}

// quoted returns text as a CQL string.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
