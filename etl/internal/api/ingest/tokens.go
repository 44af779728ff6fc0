package ingest

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// AllFleets stands in a file of tokens for every fleet.
const AllFleets = "*"

// Grant is what a token allows.
type Grant struct {
	ID          string // tells tokens apart and gives none away: the beginning of its hash
	Fleet       string // or AllFleets
	Default     string // the fleet of a record that names none: Fleet, or nothing for AllFleets
	Read, Write bool
}

// Allows tells whether the grant is for a fleet.
func (g Grant) Allows(fleet string) bool { return g.Fleet == AllFleets || g.Fleet == fleet }

// Tokens are those that the API knows. They are safe for use by many goroutines.
type Tokens struct {
	path   string
	open   *Grant // of requests without a token, nil when they are refused
	grants atomic.Pointer[map[[sha256.Size]byte]token]
}

type token struct {
	Grant
	hash [sha256.Size]byte
}

// OpenAccess lets everybody read and write every fleet; a record that names no fleet is of the given one.
func OpenAccess(fleet string) *Tokens {
	t := &Tokens{open: &Grant{ID: "open", Fleet: AllFleets, Default: fleet, Read: true, Write: true}}
	t.grants.Store(&map[[sha256.Size]byte]token{})
	return t
}

// LoadTokens reads a file of tokens, one on a line:
//
//	FLEET SHA256 [write|read|read,write]   # comment
//
// SHA256 is the token's hash in hex. Without rights a token may only write. The error names line and remedy.
func LoadTokens(path string) (*Tokens, error) {
	t := &Tokens{path: path}
	return t, t.Reload()
}

// Reload reads the file again. After an error the tokens stay as they were.
func (t *Tokens) Reload() error {
	if t.path == "" {
		return nil
	}
	file, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	defer file.Close()
	grants := map[[sha256.Size]byte]token{}
	lines := map[[sha256.Size]byte]int{}
	scanner := bufio.NewScanner(file)
	for n := 1; scanner.Scan(); n++ {
		text, _, _ := strings.Cut(scanner.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		hash, grant, err := parseToken(words)
		if first := lines[hash]; err == nil && first != 0 {
			err = fmt.Errorf("the token of line %d again: make one for each line", first)
		}
		if err != nil {
			return fmt.Errorf("tokens %s line %d: %w", t.path, n, err)
		}
		grants[hash], lines[hash] = token{grant, hash}, n
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("tokens %s: %w", t.path, err)
	}
	if len(grants) == 0 {
		return fmt.Errorf("tokens %s: there is none in it: add a line FLEET SHA256", t.path)
	}
	t.grants.Store(&grants)
	return nil
}

// shortestSecret is the length from which on a word that makes no sense in its place is not shown.
const shortestSecret = 32

// shown is a word that makes no sense in its place, for an error; of one that may be a secret only its length.
func shown(word string) string {
	if len(word) >= shortestSecret {
		return fmt.Sprintf("of %d characters", len(word))
	}
	return fmt.Sprintf("%q", word)
}

// parseToken reads the words of a line. Its errors show no hash: it may be a token that somebody put there by mistake.
func parseToken(words []string) (hash [sha256.Size]byte, g Grant, err error) {
	if len(words) < 2 || len(words) > 3 {
		return hash, g, errors.New("give FLEET SHA256 and, if it may do more than write, read or read,write")
	}
	if words[0] != AllFleets && !telemetry.ValidName(words[0]) {
		return hash, g, fmt.Errorf("fleet %s: use 1 to 128 characters of A-Za-z0-9._:-, or * for all fleets", shown(words[0]))
	}
	if n, err := hex.Decode(hash[:], []byte(words[1])[:min(len(words[1]), 2*sha256.Size)]); err != nil || n != sha256.Size || len(words[1]) != 2*sha256.Size {
		return hash, g, errors.New("the second word is no SHA-256 of 64 hex digits: give what printf %s TOKEN | sha256sum prints")
	}
	g = Grant{ID: words[1][:12], Fleet: words[0], Default: words[0], Write: true}
	if g.Fleet == AllFleets {
		g.Default = ""
	}
	if len(words) == 3 {
		g.Read, g.Write = false, false
		for right := range strings.SplitSeq(words[2], ",") {
			switch right {
			case "read":
				g.Read = true
			case "write":
				g.Write = true
			default:
				return hash, g, fmt.Errorf("right %s: give write, read or read,write", shown(right))
			}
		}
	}
	return hash, g, nil
}

// NewToken makes a token and the hash that stands for it in the file.
func NewToken() (token, hash string) {
	secret := make([]byte, 20)
	_, _ = rand.Read(secret) // it never fails
	token = strings.ToLower(base32.StdEncoding.EncodeToString(secret))
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:])
}

// Authenticate gives what a request may do: by its bearer token, or by its password of basic authentication. It is
// false for a token that is not known, and without one unless access is open.
func (t *Tokens) Authenticate(r *http.Request) (Grant, bool) { return t.authenticate(r, "") }

// authenticate also takes a token from elsewhere in the request.
func (t *Tokens) authenticate(r *http.Request, presented string) (Grant, bool) {
	if presented == "" {
		presented = bearer(r)
	}
	if presented == "" && t.open != nil {
		return *t.open, true
	}
	// Only the hash of what was presented is looked up and compared: the timing tells nothing of any token.
	sum := sha256.Sum256([]byte(presented))
	known, ok := (*t.grants.Load())[sum]
	if !ok || subtle.ConstantTimeCompare(known.hash[:], sum[:]) != 1 {
		return Grant{}, false
	}
	return known.Grant, true
}

func bearer(r *http.Request) string {
	if user, password, ok := r.BasicAuth(); ok {
		if password == "" {
			return user
		}
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
