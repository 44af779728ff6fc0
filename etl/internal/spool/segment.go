package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// The format of an entry, little-endian. The checksum is the CRC-32C of the segment's salt and everything but itself.
//
//	length of payload 4 | checksum 4 | number 8 | write time, Unix ms 8 | payload
const (
	atChecksum  = 4
	atNumber    = 8
	atTime      = 16
	headerBytes = 24
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one file. Its name has the number of its first entry and a salt. A payload can't forge an entry, which
// recovery would find when the entry around it is corrupt, because senders do not know the salt.
type segment struct {
	path    string
	first   uint64
	salt    uint64
	end     uint64         // number after its last entry
	size    int64          // bytes that are on disk and may be read
	corrupt []corruptRange // found when the spool was opened
}

// corruptRange is a byte range of a segment without an entry.
type corruptRange struct{ from, to int64 }

// skipCorrupt returns the offset of the entry at or after an offset.
func (g *segment) skipCorrupt(offset int64) int64 {
	for _, c := range g.corrupt {
		if c.from == offset {
			return c.to
		}
	}
	return offset
}

const segmentSuffix = ".spool"

// segmentName returns the file name of a segment.
func segmentName(first, salt uint64) string {
	return fmt.Sprintf("%020d-%016x%s", first, salt, segmentSuffix)
}

func parseSegmentName(name string) (first, salt uint64, ok bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(stem) != 20+1+16 || stem[20] != '-' {
		return 0, 0, false
	}
	first, err := strconv.ParseUint(stem[:20], 10, 64)
	salt, err2 := strconv.ParseUint(stem[21:], 16, 64)
	return first, salt, err == nil && err2 == nil
}

func newSegment(path func(string) string, first uint64) *segment {
	salt := rand.Uint64()
	return &segment{path: path(segmentName(first, salt)), first: first, salt: salt, end: first}
}

// segmentFile is the file of the segment that is written to.
type segmentFile interface {
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

func createFile(path string) (segmentFile, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
}

// appendEntry adds an entry to a buffer, without number, time and checksum.
func appendEntry(b, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, make([]byte, headerBytes-atChecksum)...)
	return append(b, payload...)
}

// stamp sets numbers from first on, the time and the checksum of the entries in b.
func stamp(b []byte, salt, first uint64, timeMs int64) {
	for ; len(b) > 0; first++ {
		size := headerBytes + int(binary.LittleEndian.Uint32(b))
		binary.LittleEndian.PutUint64(b[atNumber:], first)
		binary.LittleEndian.PutUint64(b[atTime:], uint64(timeMs))
		binary.LittleEndian.PutUint32(b[atChecksum:], checksum(salt, b[:size]))
		b = b[size:]
	}
}

func checksum(salt uint64, entry []byte) uint32 {
	var seed [8]byte
	binary.LittleEndian.PutUint64(seed[:], salt)
	sum := crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, entry[:atChecksum])
	return crc32.Update(sum, castagnoli, entry[atNumber:])
}

// entry is one entry as read from disk.
type entry struct {
	number  uint64
	timeMs  int64
	payload []byte
	size    int64 // on disk
}

// errCorrupt says that an entry is missing where one should be.
var errCorrupt = errors.New("corrupt")

// readEntry reads the entry at an offset of the segment, whose number is in [from, to).
func (g *segment) readEntry(f io.ReaderAt, offset, size int64, from, to uint64) (entry, error) {
	var header [headerBytes]byte
	if size-offset < headerBytes {
		return entry{}, errCorrupt
	}
	if _, err := f.ReadAt(header[:], offset); err != nil {
		return entry{}, g.errorAt(offset, err)
	}
	e := parseHeader(header[:])
	if !e.plausible(size-offset, from, to) {
		return entry{}, errCorrupt
	}
	whole := make([]byte, e.size)
	copy(whole, header[:])
	if _, err := f.ReadAt(whole[headerBytes:], offset+headerBytes); err != nil && e.size > headerBytes {
		return entry{}, g.errorAt(offset, err)
	}
	if checksum(g.salt, whole) != binary.LittleEndian.Uint32(whole[atChecksum:]) {
		return entry{}, errCorrupt
	}
	e.payload = whole[headerBytes:]
	return e, nil
}

func parseHeader(b []byte) entry {
	return entry{
		number: binary.LittleEndian.Uint64(b[atNumber:]),
		timeMs: int64(binary.LittleEndian.Uint64(b[atTime:])),
		size:   headerBytes + int64(binary.LittleEndian.Uint32(b)),
	}
}

// plausible reports whether the rest of a segment, in bytes, may hold an entry with this header.
func (e *entry) plausible(rest int64, from, to uint64) bool {
	return e.size <= rest && e.size <= headerBytes+MaxEntry && e.number >= from && e.number < to
}

func (g *segment) errorAt(offset int64, err error) error {
	return fmt.Errorf("file %s at byte %d: %w: check the disk; if the file stays unreadable, move it away to continue without its entries", g.path, offset, err)
}

// find returns the offset of the next intact entry, from an offset on, with a number in [from, to), or -1.
func (g *segment) find(f io.ReaderAt, offset, size int64, from, to uint64) (int64, error) {
	const step = 1 << 20
	buf := make([]byte, step+headerBytes)
	for ; offset+headerBytes <= size; offset += step {
		n := min(int64(len(buf)), size-offset)
		if _, err := f.ReadAt(buf[:n], offset); err != nil {
			return 0, g.errorAt(offset, err)
		}
		for i := int64(0); i+headerBytes <= n && i < step; i++ {
			e := parseHeader(buf[i:])
			if !e.plausible(size-offset-i, from, to) {
				continue
			}
			switch _, err := g.readEntry(f, offset+i, size, from, to); err {
			case nil:
				return offset + i, nil
			case errCorrupt:
			default:
				return 0, err
			}
		}
	}
	return -1, nil
}
