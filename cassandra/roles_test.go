package cassandra

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestAReaderCanOnlyRead(t *testing.T) {
	for _, role := range []Role{{Name: "reader", Password: "p"}, {Name: "writer", Password: "p", Writes: true}} {
		text := strings.Join(role.statements("fleet"), "\n")
		assert.Contains(t, text, "GRANT SELECT ON KEYSPACE fleet TO "+role.Name)
		assert.Equal(t, role.Writes, strings.Contains(text, "GRANT MODIFY ON KEYSPACE fleet TO "+role.Name))
		assert.Equal(t, map[bool]int{false: 1, true: 2}[role.Writes], strings.Count(text, "GRANT"))
		assert.NotContains(t, text, "SUPERUSER")
	}
}

func TestPasswordsOfRolesAreTextAndNothingElse(t *testing.T) {
	for _, statement := range (Role{Name: "reader", Password: "it's; DROP ROLE x"}).statements("fleet") {
		head, rest, _ := strings.Cut(statement, "\n")
		assert.NotContains(t, head, "DROP", "errors show the first line")
		if rest != "" {
			assert.True(t, strings.HasSuffix(rest, "PASSWORD = 'it''s; DROP ROLE x'"), rest)
		}
	}
}

func TestRolesAreRefusedBeforeAnybodyIsAsked(t *testing.T) {
	cfg := Config{Hosts: []string{"127.0.0.1:1"}, Keyspace: "fleet"}
	for want, role := range map[string]Role{
		`role "Reader": take 1 to 48 characters of a-z0-9_, a letter first`: {Name: "Reader", Password: "p"},
		"role reader: its password is empty":                                {Name: "reader"},
	} {
		assert.EqualError(t, ApplyRoles(t.Context(), cfg, []Role{role}, nil), want)
	}
	cfg.Username, cfg.Password = "cassandra", "cassandra"
	assert.EqualError(t, MakeAdministrator(t.Context(), cfg, nil, nil),
		`user "cassandra" (CASSANDRA_USERNAME): everybody knows it; choose another name for the administrator`)
}
