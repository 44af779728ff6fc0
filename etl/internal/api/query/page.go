package query

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
)

// keyVersion is part of every key. Change it with the format of the values, because processes of two versions may share a
// cache.
const keyVersion = "1"

func hashKey(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "fleet-etl:read:" + keyVersion + ":" + kind + ":" + hex.EncodeToString(sum[:])
}

func generationKey(fleet string) string { return hashKey("generation", fleet) }

// pageKey names a page. It contains the fleet of the token, so that no token receives data of another fleet.
func pageKey(q *params.Query, generation string) string {
	return hashKey("page", append(q.Key(), generation)...)
}

// page is a part of a list as the client receives it.
type page struct {
	next string
	etag string
	body []byte
}

// encode encodes two texts after their length, then the body.
func (p page) encode() []byte {
	b := make([]byte, 0, len(p.next)+len(p.etag)+len(p.body)+2*binary.MaxVarintLen32)
	for _, text := range []string{p.next, p.etag} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return append(b, p.body...)
}

// decodePage reads what encode wrote. It returns false for anything else that a shared cache may contain.
func decodePage(b []byte) (p page, ok bool) {
	for _, text := range []*string{&p.next, &p.etag} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return page{}, false
		}
		*text = string(b[size : size+int(n)])
		b = b[size+int(n):]
	}
	p.body = b
	return p, p.etag != ""
}

func isPage(b []byte) bool {
	_, ok := decodePage(b)
	return ok
}
