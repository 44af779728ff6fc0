// Package auth decides what a request to the HTTP API may do. A file of tokens gives each token a fleet and its rights.
package auth

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// AllFleets is the fleet of a token for all fleets. Its holder is trusted: see pipeline.Trusted.
const AllFleets = "*"

// Right is what a request needs.
type Right string

// The rights.
const (
	Public Right = "" // no token needed
	Read   Right = "read"
	Write  Right = "write"
)

// Grant is what a token allows.
type Grant struct {
	ID           string // distinguishes tokens without revealing them: the beginning of the hash
	Fleet        string // or AllFleets
	DefaultFleet string // fleet of a record that names none; empty for AllFleets
	Read, Write  bool
}

// Sender names who shares limits: all tokens of a fleet, or one token of all fleets.
func (g Grant) Sender() string {
	if g.Fleet == AllFleets {
		return g.ID
	}
	return g.Fleet
}

// Has reports whether the grant includes a right.
func (g Grant) Has(r Right) bool { return r == Public || r == Read && g.Read || r == Write && g.Write }

// Allows reports whether the grant covers a fleet.
func (g Grant) Allows(fleet string) bool { return g.Fleet == AllFleets || g.Fleet == fleet }

// Tokens are the tokens that the API accepts. They are safe for concurrent use.
type Tokens struct {
	reload.Target        // reads the file of the tokens again
	open          *Grant // for requests without a token; nil rejects them
	grants        atomic.Pointer[map[hash]Grant]
}

type hash = [sha256.Size]byte

// OpenAccess allows every request without a token to read and write every fleet. A record that names no fleet belongs to
// the given one.
func OpenAccess(fleet string) *Tokens {
	t := &Tokens{open: &Grant{ID: "open", Fleet: AllFleets, DefaultFleet: fleet, Read: true, Write: true}}
	t.grants.Store(&map[hash]Grant{})
	return t
}

// Load reads a token file with one token per line:
//
//	FLEET SHA256 [write|read|read,write]   # comment
//
// SHA256 is the hash of the token in hex. Without rights a token may only write. The error names the line and the remedy.
func Load(path string) (*Tokens, error) {
	t := &Tokens{}
	var err error
	t.Target, err = reload.Open("API tokens", &t.grants, func() (*map[hash]Grant, error) { return read(path) }, path)
	t.Alone = true
	return t, err
}

// RevokeAll rejects every token until the file is loaded again.
func (t *Tokens) RevokeAll() { t.grants.Store(&map[hash]Grant{}) }

// read reads a token file. A file without tokens is an error.
func read(path string) (*map[hash]Grant, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	defer file.Close()
	grants := map[hash]Grant{}
	lines := map[hash]int{}
	scanner := bufio.NewScanner(file)
	for n := 1; scanner.Scan(); n++ {
		text, _, _ := strings.Cut(scanner.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		hash, grant, err := parseLine(words)
		if first := lines[hash]; err == nil && first != 0 {
			err = fmt.Errorf("same token as in line %d: make one for each line", first)
		}
		if err != nil {
			return nil, fmt.Errorf("tokens %s line %d: %w", path, n, err)
		}
		grants[hash], lines[hash] = grant, n
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("tokens %s: %w", path, err)
	}
	if len(grants) == 0 {
		return nil, fmt.Errorf("tokens %s: the file has no token: add a line FLEET SHA256", path)
	}
	return &grants, nil
}

// parseLine reads the words of a line. Its errors never show a hash: it may be a token in the wrong place.
func parseLine(words []string) (h hash, g Grant, err error) {
	if len(words) < 2 || len(words) > 3 {
		return h, g, errors.New("give FLEET SHA256 and, if the token may do more than write, read or read,write")
	}
	if words[0] != AllFleets && !telemetry.ValidName(words[0]) {
		return h, g, fmt.Errorf("fleet %s: use 1 to 128 characters of A-Za-z0-9._:-, or * for all fleets", quote(words[0]))
	}
	if n, err := hex.Decode(h[:], []byte(words[1])[:min(len(words[1]), 2*len(h))]); err != nil || n != len(h) || len(words[1]) != 2*len(h) {
		return h, g, errors.New("the second word is not a SHA-256 of 64 hex digits: give the output of printf %s TOKEN | sha256sum")
	}
	g = Grant{ID: words[1][:12], Fleet: words[0], DefaultFleet: words[0], Write: true}
	if g.Fleet == AllFleets {
		g.DefaultFleet = ""
	}
	if len(words) == 3 {
		g.Read, g.Write = false, false
		for right := range strings.SplitSeq(words[2], ",") {
			switch Right(right) {
			case Read:
				g.Read = true
			case Write:
				g.Write = true
			default:
				return h, g, fmt.Errorf("right %s: give write, read or read,write", quote(right))
			}
		}
	}
	return h, g, nil
}

// shortestSecret is the length from which on an unexpected word may be a token.
const shortestSecret = 32

// quote shows an unexpected word in an error. Of a possible token it shows only the length.
func quote(word string) string {
	if len(word) >= shortestSecret {
		return fmt.Sprintf("of %d characters", len(word))
	}
	return fmt.Sprintf("%q", word)
}

// NewToken makes a token and the hash that represents it in the file.
func NewToken() (token, hash string) {
	secret := make([]byte, 20)
	_, _ = rand.Read(secret) // never fails
	token = strings.ToLower(base32.StdEncoding.EncodeToString(secret))
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:])
}

// Authenticate returns the grant of a request. An empty presented token means the bearer token or the password of basic
// authentication. ok is false for an unknown token, and for a missing one unless access is open.
func (t *Tokens) Authenticate(r *http.Request, presented string) (g Grant, ok bool) {
	if presented == "" {
		presented = bearer(r)
	}
	if presented == "" && t.open != nil {
		return *t.open, true
	}
	// The lookup uses the hash alone, so its timing reveals nothing about any token.
	g, ok = (*t.grants.Load())[sha256.Sum256([]byte(presented))]
	return g, ok
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
