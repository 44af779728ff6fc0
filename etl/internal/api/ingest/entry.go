package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The protocols.
const (
	protocolTelemetry = "telemetry"
	protocolOsmAnd    = "osmand"
	protocolTraccar   = "traccar"
	protocolOwnTracks = "owntracks"
)

var protocols = []string{protocolTelemetry, protocolOsmAnd, protocolTraccar, protocolOwnTracks}

// entry is what the journal keeps of one request.
//
//	version, accepted (ms), origin, protocol, number of records, then of each
//	  0, index, record as JSON, raw (empty when that is the same)
//	  1, index, reason, field, value, remedy, raw
//
// Numbers are unsigned varints; texts have their length before them.
type entry struct {
	at       time.Time // when it was accepted
	origin   string    // the request's identity
	protocol string
	records  []received
}

const entryVersion = 1

const (
	kindRecord  = 0
	kindRefused = 1
)

// errVersion is of an entry that another version of the program wrote.
type errVersion byte

func (v errVersion) Error() string {
	return fmt.Sprintf("it is of version %d, this program knows version %d: let the program that wrote it empty the journal", byte(v), entryVersion)
}

func (e *entry) encode() ([]byte, error) {
	size := 64
	for i := range e.records {
		size += 160 + len(e.records[i].raw)
	}
	b := make([]byte, 0, size)
	b = append(b, entryVersion)
	b = binary.AppendUvarint(b, uint64(e.at.UnixMilli()))
	b = appendText(appendText(b, e.origin), e.protocol)
	b = binary.AppendUvarint(b, uint64(len(e.records)))
	var text []byte
	for i := range e.records {
		r := &e.records[i]
		if r.rejection != nil {
			b = binary.AppendUvarint(append(b, kindRefused), uint64(r.index))
			for _, s := range [...]string{string(r.rejection.Reason), r.rejection.Field, r.rejection.Value, r.rejection.Remedy, r.raw} {
				b = appendText(b, s)
			}
			continue
		}
		var err error
		if text, err = r.record.AppendJSON(text[:0]); err != nil {
			return nil, fmt.Errorf("record %d: %w", r.index, err)
		}
		raw := r.raw
		if raw == string(text) {
			raw = ""
		}
		b = binary.AppendUvarint(append(b, kindRecord), uint64(r.index))
		b = appendText(appendText(b, text), raw)
	}
	return b, nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeEntry reads what encode wrote, and nothing else.
func decodeEntry(b []byte) (entry, error) {
	var e entry
	if len(b) == 0 {
		return e, errors.New("it is empty")
	}
	if b[0] != entryVersion {
		return e, errVersion(b[0])
	}
	d := decoder{bytes: b, text: string(b), at: 1}
	e.at = time.UnixMilli(int64(d.number(1 << 53)))
	e.origin, e.protocol = d.string(), d.string()
	if d.err == nil && !slices.Contains(protocols, e.protocol) {
		d.err = fmt.Errorf("protocol %q is not known", e.protocol)
	}
	count := d.number(uint64(len(b)))
	for range count {
		if d.err != nil {
			break
		}
		e.records = append(e.records, d.record())
	}
	switch {
	case d.err != nil:
		return entry{}, d.err
	case len(e.records) == 0:
		return entry{}, errors.New("it has no records")
	case d.at != len(b):
		return entry{}, fmt.Errorf("%d bytes are left over", len(b)-d.at)
	}
	return e, nil
}

// decoder goes through an entry; after its first error it gives nothing more.
type decoder struct {
	bytes []byte
	text  string // the same
	at    int
	err   error
}

func (d *decoder) number(most uint64) uint64 {
	if d.err != nil {
		return 0
	}
	n, size := binary.Uvarint(d.bytes[d.at:])
	if size <= 0 || n > most {
		d.err = fmt.Errorf("no number at byte %d", d.at)
		return 0
	}
	d.at += size
	return n
}

func (d *decoder) string() string {
	n := int(d.number(uint64(len(d.bytes))))
	if d.err == nil && n > len(d.bytes)-d.at {
		d.err = fmt.Errorf("the text at byte %d is cut short", d.at)
	}
	if d.err != nil {
		return ""
	}
	d.at += n
	return d.text[d.at-n : d.at]
}

func (d *decoder) record() received {
	kind := d.number(kindRefused)
	r := received{index: int(d.number(uint64(len(d.bytes)) << 20))}
	if kind == kindRefused {
		r.rejection = &telemetry.Rejection{Reason: telemetry.Reason(d.string()), Field: d.string(), Value: d.string(), Remedy: d.string()}
		r.raw = d.string()
		if d.err == nil && !slices.Contains(telemetry.Reasons, r.rejection.Reason) {
			d.err = fmt.Errorf("reason %q is not known", r.rejection.Reason)
		}
		return r
	}
	text := d.string()
	r.raw = d.string()
	if d.err != nil {
		return r
	}
	if r.raw == "" {
		r.raw = text
	}
	record, rejection := telemetry.ParseJSON([]byte(text), "")
	if rejection != nil {
		d.err = rejection
	}
	r.record = record
	return r
}
