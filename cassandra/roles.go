package cassandra

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"

	"github.com/sirupsen/logrus"
)

// Role is a login that may read the keyspace and, where it Writes, change its rows. It can't change the schema or other
// roles.
type Role struct {
	Name, Password string
	Writes         bool
}

// A new cluster with password login has this superuser, whom everybody knows.
const defaultSuperuser, defaultSuperuserPassword = "cassandra", "cassandra"

var validRole = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// MakeAdministrator makes the user of cfg the superuser of a cluster with password login, spreads logins over the data
// centres as replication says, and closes Cassandra's own superuser, whom everybody knows. It can be called again at any time.
// All nodes must be up.
func MakeAdministrator(ctx context.Context, cfg Config, replication Replication, logger logrus.FieldLogger) error {
	cfg = cfg.withDefaults()
	cfg.Timeout = max(cfg.Timeout, schemaTimeout)
	admin := Role{Name: cfg.Username, Password: cfg.Password}
	if err := admin.check(); err != nil {
		return err
	}
	if admin.Name == defaultSuperuser {
		return fmt.Errorf("user %q (%s): everybody knows it; choose another name for the administrator", admin.Name, cfg.setting("CASSANDRA_USERNAME"))
	}
	session, err := connect(ctx, cfg, "", newObserver(nil), logger)
	if ReasonOf(err) == ReasonUnauthorized {
		if err := introduce(ctx, cfg, admin, replication, logger); err != nil {
			return err
		}
		session, err = connect(ctx, cfg, "", newObserver(nil), logger)
	}
	if err != nil {
		return err
	}
	defer session.Close()
	// Also where it was there before: the last call may have died in between.
	return execSchema(ctx, session, []string{
		fmt.Sprintf("ALTER ROLE IF EXISTS %s\nWITH PASSWORD = %s AND LOGIN = false", defaultSuperuser, quoted(rand.Text())),
	})
}

// introduce makes the administrator as Cassandra's own superuser.
func introduce(ctx context.Context, cfg Config, admin Role, replication Replication, logger logrus.FieldLogger) error {
	first := cfg
	first.Username, first.Password = defaultSuperuser, defaultSuperuserPassword
	session, err := connect(ctx, first, "", newObserver(nil), logger)
	if ReasonOf(err) == ReasonUnauthorized {
		return fmt.Errorf("log in as %s (%s): the password is wrong, and the cluster is not new: it takes Cassandra's own superuser no more; give the password that was set when the cluster was made: %w",
			admin.Name, cfg.setting("CASSANDRA_PASSWORD"), err)
	}
	if err != nil {
		return err
	}
	defer session.Close()
	if err := checkReplicas(ctx, session, replication); err != nil {
		return err
	}
	// First of all, so that each role is stored everywhere from the start, and nothing is left to repair.
	return execSchema(ctx, session, []string{
		"ALTER KEYSPACE system_auth\nWITH replication = " + replication.cql(),
		fmt.Sprintf("CREATE ROLE IF NOT EXISTS %s\nWITH SUPERUSER = true AND LOGIN = true AND PASSWORD = %s", admin.Name, quoted(admin.Password)),
		fmt.Sprintf("ALTER ROLE %s\nWITH PASSWORD = %s", admin.Name, quoted(admin.Password)),
	})
}

// ApplyRoles makes the roles, sets their passwords, and gives them their rights on the keyspace. cfg has the login of an
// administrator. It can be called again at any time. All nodes must be up.
func ApplyRoles(ctx context.Context, cfg Config, roles []Role, logger logrus.FieldLogger) error {
	cfg = cfg.withDefaults()
	cfg.Timeout = max(cfg.Timeout, schemaTimeout)
	var statements []string
	for _, r := range roles {
		if err := r.check(); err != nil {
			return err
		}
		statements = append(statements, r.statements(cfg.Keyspace)...)
	}
	session, err := connect(ctx, cfg, "", newObserver(nil), logger)
	if err != nil {
		return err
	}
	defer session.Close()
	return execSchema(ctx, session, statements)
}

func (r Role) check() error {
	if !validRole.MatchString(r.Name) {
		return fmt.Errorf("role %q: take 1 to 48 characters of a-z0-9_, a letter first", r.Name)
	}
	if r.Password == "" {
		return fmt.Errorf("role %s: its password is empty", r.Name)
	}
	return nil
}

// statements have a first line of their own, which errors show, without the password.
func (r Role) statements(keyspace string) []string {
	rights := []string{"SELECT"}
	if r.Writes {
		rights = append(rights, "MODIFY")
	}
	statements := []string{
		fmt.Sprintf("CREATE ROLE IF NOT EXISTS %s\nWITH LOGIN = true AND PASSWORD = %s", r.Name, quoted(r.Password)),
		fmt.Sprintf("ALTER ROLE %s\nWITH LOGIN = true AND PASSWORD = %s", r.Name, quoted(r.Password)),
	}
	for _, right := range rights {
		statements = append(statements, fmt.Sprintf("GRANT %s ON KEYSPACE %s TO %s", right, keyspace, r.Name))
	}
	return statements
}

// quoted is text as a CQL string.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
