package schema

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestRightsOfReadersAndWriters(t *testing.T) {
	assert.Equal(t, []string{"GRANT SELECT ON KEYSPACE fleet TO reader"}, Role{Name: "reader"}.rights("fleet"))
	assert.Equal(t, []string{"GRANT SELECT ON KEYSPACE fleet TO writer", "GRANT MODIFY ON KEYSPACE fleet TO writer"},
		Role{Name: "writer", Writes: true}.rights("fleet"))
}

func TestPasswordsAreQuoted(t *testing.T) {
	assert.Equal(t, "'it''s; DROP ROLE x'", quoted("it's; DROP ROLE x"))
}

func TestRolesAreCheckedBeforeConnecting(t *testing.T) {
	cfg := cassandra.Config{Hosts: []string{"127.0.0.1:1"}, Keyspace: "fleet"}
	for want, role := range map[string]Role{
		`role "Reader": use 1 to 48 characters of a-z0-9_, a letter first`: {Name: "Reader", Password: "p"},
		"role reader: the password is empty":                               {Name: "reader"},
	} {
		assert.EqualError(t, ApplyRoles(t.Context(), cfg, []Role{role}, nil), want)
	}
	cfg.Username, cfg.Password = "cassandra", "cassandra"
	assert.EqualError(t, MakeAdministrator(t.Context(), cfg, nil, nil),
		`user "cassandra" (CASSANDRA_USERNAME): this is the default superuser; choose another name for the administrator`)
}
