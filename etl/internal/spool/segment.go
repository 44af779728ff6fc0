package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// The format of an entry, little-endian. The checksums are CRC-32Cs of the segment's salt and the payload, and of the salt
// and the rest of the header. The header has its own, so that a search for the next intact entry reads each byte a few
// times, whatever lengths the bytes pretend to be.
//
//	length of payload 4 | checksum of header 4 | number 8 | write time, Unix ms 8 | checksum of payload 4 | payload
const (
	atChecksum  = 4
	atNumber    = 8
	atTime      = 16
	atPayload   = 24 // the checksum of the payload
	headerBytes = 28
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one file. Its name has the number of its first entry and a salt. A payload can't forge an entry, which would
// be found when the entry around it is corrupt, because senders do not know the salt.
type segment struct {
	path    string
	first   uint64
	salt    uint64
	end     uint64  // number after its last entry
	size    int64   // bytes that are on disk and may be read
	corrupt []int64 // offsets of the corrupt ranges that were found when the spool was opened

	unreadable bool // the disk did not read all of it
}

func (s *Spool) newSegment(first, salt uint64) *segment {
	return &segment{path: s.path(segmentName(first, salt)), first: first, salt: salt, end: first}
}

const segmentSuffix = ".spool"

// segmentName returns the file name of a segment.
func segmentName(first, salt uint64) string {
	return fmt.Sprintf("%020d-%016x%s", first, salt, segmentSuffix)
}

func parseSegmentName(name string) (first, salt uint64, ok bool) {
	_, err := fmt.Sscanf(name, "%d-%x", &first, &salt)
	return first, salt, err == nil && name == segmentName(first, salt)
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

// appendEntry adds an entry to a buffer, without number, time and checksums.
func appendEntry(b, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, make([]byte, headerBytes-atChecksum)...)
	return append(b, payload...)
}

// stamp sets numbers from first on, the time and the checksums of the entries in b.
func stamp(b []byte, salt, first uint64, timeMs int64) {
	for ; len(b) > 0; first++ {
		size := headerBytes + int(binary.LittleEndian.Uint32(b))
		binary.LittleEndian.PutUint64(b[atNumber:], first)
		binary.LittleEndian.PutUint64(b[atTime:], uint64(timeMs))
		binary.LittleEndian.PutUint32(b[atPayload:], checksum(salt, b[headerBytes:size]))
		binary.LittleEndian.PutUint32(b[atChecksum:], headerChecksum(salt, b))
		b = b[size:]
	}
}

func checksum(salt uint64, b []byte) uint32 {
	var seed [8]byte
	binary.LittleEndian.PutUint64(seed[:], salt)
	return crc32.Update(crc32.Checksum(seed[:], castagnoli), castagnoli, b)
}

func headerChecksum(salt uint64, b []byte) uint32 {
	return crc32.Update(checksum(salt, b[:atChecksum]), castagnoli, b[atNumber:headerBytes])
}

// entry is one entry as read from disk.
type entry struct {
	number  uint64
	payload []byte
	size    int64 // on disk
}

// parse returns the entry at the beginning of b, whose number is in [from, to). ok is false when there is none.
func (g *segment) parse(b []byte, from, to uint64) (e entry, ok bool) {
	if len(b) < headerBytes {
		return entry{}, false
	}
	size := headerBytes + int64(binary.LittleEndian.Uint32(b))
	number := binary.LittleEndian.Uint64(b[atNumber:])
	if size > int64(len(b)) || number < from || number >= to || headerChecksum(g.salt, b) != binary.LittleEndian.Uint32(b[atChecksum:]) ||
		checksum(g.salt, b[headerBytes:size]) != binary.LittleEndian.Uint32(b[atPayload:]) {
		return entry{}, false
	}
	return entry{number, b[headerBytes:size:size], size}, true
}

// find returns the first intact entry in b with a number in [from, to), and how many bytes are before it: 0 unless b begins
// with a corrupt range.
func (g *segment) find(b []byte, from, to uint64) (e entry, skipped int64, ok bool) {
	to = min(to, from+uint64(len(b)/headerBytes)+1) // no more fit into b
	for ; len(b) >= headerBytes; b = b[1:] {
		if e, ok := g.parse(b, from, to); ok {
			return e, skipped, true
		}
		skipped++
	}
	return entry{}, 0, false
}

// unreadable returns nil for an error of reading a file, as from a bad disk, after it has logged it: the entries that were
// not read are corrupt. Errors of opening the file are returned.
func (s *Spool) unreadable(g *segment, err error) error {
	var failed *fs.PathError
	switch {
	case err == nil, err == io.EOF: // the file is shorter than it was
		return nil
	case !errors.As(err, &failed) || failed.Op != "read":
		return err
	}
	s.metrics.failed("read")
	s.logger.WithError(err).WithField("file", g.path).
		Error("spool segment unreadable, continuing without the entries in it that the disk does not return: the file is kept as " + g.path + unreadableSuffix)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.unreadable = true
	return nil
}

// unreadableSuffix is added to the name of a segment that the disk did not read, instead of removing it.
const unreadableSuffix = ".unreadable"

// remove removes a segment's file.
func (g *segment) remove() error {
	if g.unreadable {
		return os.Rename(g.path, g.path+unreadableSuffix)
	}
	return os.Remove(g.path)
}
