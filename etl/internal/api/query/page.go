package query

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
)

// keyVersion is part of every key. Change it with the format of the values, because processes of two versions may share a
// cache.
const keyVersion = "2"

func hashKey(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "fleet-etl:read:" + keyVersion + ":" + kind + ":" + hex.EncodeToString(sum[:])
}

func generationKey(fleet string) string { return hashKey("generation", fleet) }

// pageKey names a page. It contains the fleet of the token, so that no token receives data of another fleet.
func pageKey(q *params.Query, generation string) string {
	return hashKey("page", append(q.Key(), generation)...)
}

// page is a part of a list as the client receives it. It is cached as CBOR.
type page struct {
	Next string
	ETag string
	Body []byte
}

// decodePage reads an encoded page. It returns false for anything else that a shared cache may contain.
func decodePage(b []byte) (p page, ok bool) {
	err := cbor.Unmarshal(b, &p)
	return p, err == nil && p.ETag != ""
}

func isPage(b []byte) bool {
	_, ok := decodePage(b)
	return ok
}
