package auth

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func tokenFile(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func bearing(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

func TestTokenGrantsRightsOfItsLine(t *testing.T) {
	token, hash := NewToken()
	for name, c := range map[string]struct {
		line string
		want Grant
	}{
		"without rights it writes": {"wuxi " + hash, Grant{Fleet: "wuxi", DefaultFleet: "wuxi", Write: true}},
		"read":                     {"wuxi " + hash + " read", Grant{Fleet: "wuxi", DefaultFleet: "wuxi", Read: true}},
		"both":                     {"wuxi\t" + hash + "  read,write # gateway", Grant{Fleet: "wuxi", DefaultFleet: "wuxi", Read: true, Write: true}},
		"write, explicit":          {"wuxi " + hash + " write#", Grant{Fleet: "wuxi", DefaultFleet: "wuxi", Write: true}},
		"all fleets":               {"* " + strings.ToUpper(hash), Grant{Fleet: "*", Write: true}},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, err := Load(tokenFile(t, "# gateways\n\n"+c.line+"\n"))
			require.NoError(t, err)
			grant, ok := tokens.Authenticate(bearing(token), "")
			require.True(t, ok)
			require.Len(t, grant.ID, 12)
			require.NotContains(t, token, grant.ID)
			grant.ID = ""
			require.Equal(t, c.want, grant)

			for _, wrong := range []string{"", "x", token + "x", token[1:], strings.ToUpper(token), hash} {
				_, ok := tokens.Authenticate(bearing(wrong), "")
				require.False(t, ok, wrong)
			}
		})
	}
}

func TestTokenInBasicAuthentication(t *testing.T) {
	token, hash := NewToken()
	tokens, err := Load(tokenFile(t, "wuxi "+hash))
	require.NoError(t, err)
	for name, login := range map[string][2]string{"as the password": {"jane", token}, "alone": {token, ""}} {
		r := bearing("")
		r.SetBasicAuth(login[0], login[1])
		_, ok := tokens.Authenticate(r, "")
		require.True(t, ok, name)
	}
	r := bearing("")
	r.SetBasicAuth(token, "wrong")
	_, ok := tokens.Authenticate(r, "")
	require.False(t, ok, "the user name is not a password")
}

func TestInvalidTokenFileIsRejectedByLine(t *testing.T) {
	token, hash := NewToken()
	for name, c := range map[string]struct{ text, want string }{
		"a word":           {"wuxi", "line 1: give FLEET SHA256"},
		"too many":         {"\nwuxi " + hash + " read write", "line 2: give FLEET SHA256"},
		"a fleet":          {"wu/xi " + hash, `line 1: fleet "wu/xi": use 1 to 128`},
		"a right":          {"wuxi " + hash + " read,all", `line 1: right "all": give write, read or read,write`},
		"a short hash":     {"wuxi " + hash[:62], "line 1: the second word is not a SHA-256 of 64 hex digits"},
		"a long hash":      {"wuxi " + hash + "00", "line 1: the second word is not a SHA-256 of 64 hex digits"},
		"the token itself": {"wuxi " + token, "line 1: the second word is not a SHA-256 of 64 hex digits"},
		"twice":            {"wuxi " + hash + "\nsuzhou " + hash, "line 2: same token as in line 1"},
		"nothing":          {"# none yet\n", "the file has no token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(tokenFile(t, c.text))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), token, "it may be a secret")
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func again(t *Tokens) error {
	apply, err := t.Load()
	if err == nil {
		apply()
	}
	return err
}

func TestReloadKeepsTokensOnFailure(t *testing.T) {
	first, firstHash := NewToken()
	second, secondHash := NewToken()
	path := tokenFile(t, "wuxi "+firstHash)
	tokens, err := Load(path)
	require.NoError(t, err)
	knows := func(token string) bool {
		_, ok := tokens.Authenticate(bearing(token), "")
		return ok
	}
	require.NoError(t, os.WriteFile(path, []byte("suzhou "+secondHash), 0o600))
	require.NoError(t, again(tokens))
	require.False(t, knows(first))
	require.True(t, knows(second))

	require.NoError(t, os.WriteFile(path, []byte("suzhou "), 0o600))
	require.Error(t, again(tokens))
	require.True(t, knows(second))
	require.NoError(t, os.Remove(path))
	require.Error(t, again(tokens))
	require.True(t, knows(second))

	tokens.RevokeAll()
	require.False(t, knows(second))
	require.NoError(t, os.WriteFile(path, []byte("suzhou "+secondHash), 0o600))
	require.NoError(t, again(tokens))
	require.True(t, knows(second))
}

func TestOpenAccessRejectsWrongToken(t *testing.T) {
	tokens := OpenAccess("yard")
	grant, ok := tokens.Authenticate(bearing(""), "")
	require.True(t, ok)
	require.Equal(t, Grant{ID: "open", Fleet: AllFleets, DefaultFleet: "yard", Read: true, Write: true}, grant)
	require.True(t, grant.Allows("any"))
	_, ok = tokens.Authenticate(bearing("wrong"), "")
	require.False(t, ok)
}

// FuzzLoad checks that a valid token file accepts its own tokens with their rights, and no others.
func FuzzLoad(f *testing.F) {
	token, hash := NewToken()
	for _, text := range []string{
		"wuxi " + hash, "* " + hash + " read,write # x", "a " + hash + "\nb " + hash, "a  " + strings.ToUpper(hash) + "\tread\r\n", "# nothing", "wuxi " + token, "a b c d",
		"wuxi " + hash[:63], strings.Repeat("x", 70_000),
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "tokens")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		tokens, err := Load(path)
		if err != nil {
			for _, word := range bytes.Fields(text) {
				if len(word) == 64 {
					require.NotContains(t, err.Error(), string(word), "it may be a token")
				}
			}
			return
		}
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		_, known := tokens.Authenticate(request, "")
		require.False(t, known, "without a token")
		request.Header.Set("Authorization", "Bearer "+token)
		grant, known := tokens.Authenticate(request, "")
		require.Equal(t, bytes.Contains(bytes.ToLower(withoutComments(text)), []byte(hash)), known)
		if known {
			require.True(t, grant.Fleet == AllFleets || telemetry.ValidName(grant.Fleet))
			require.True(t, grant.Read || grant.Write)
		}
	})
}

func withoutComments(text []byte) (left []byte) {
	for _, line := range bytes.Split(text, []byte("\n")) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		left = append(append(left, line...), '\n')
	}
	return left
}
