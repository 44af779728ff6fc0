package rest

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"time"
)

// requestIDs makes IDs of requests: unique across processes, and sorted by time.
type requestIDs struct {
	process string
	count   *atomic.Uint32
}

func newRequestIDs() requestIDs {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return requestIDs{hex.EncodeToString(b[:]), new(atomic.Uint32)}
}

func (i requestIDs) next(now time.Time) string {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	binary.BigEndian.PutUint32(b[6:], i.count.Add(1))
	return hex.EncodeToString(b[:10]) + i.process
}
