package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// entry is one request in the spool. Its binary form is
//
//	version, accepted (ms), origin, protocol, number of records, then for each
//	  0, index, record as JSON, raw text (empty if it equals the JSON)
//	  1, index, reason, field, value, remedy, raw text
//
// Numbers are unsigned varints. Texts follow their length.
type entry struct {
	at       time.Time // when the request was accepted
	origin   string    // ID of the request
	protocol string
	messages []protocol.Message
}

const entryVersion = 1

const (
	kindRecord   = 0
	kindRejected = 1
)

// errVersion is the error of an entry that another version of the program wrote.
type errVersion byte

func (v errVersion) Error() string {
	return fmt.Sprintf("entry version %d, want version %d: empty the spool with the program that wrote it", byte(v), entryVersion)
}

func (e *entry) encode() ([]byte, error) {
	size := 64
	for i := range e.messages {
		size += 160 + len(e.messages[i].Raw)
	}
	b := make([]byte, 0, size)
	b = append(b, entryVersion)
	b = binary.AppendUvarint(b, uint64(e.at.UnixMilli()))
	b = appendText(appendText(b, e.origin), e.protocol)
	b = binary.AppendUvarint(b, uint64(len(e.messages)))
	var text []byte
	for i := range e.messages {
		m := &e.messages[i]
		if m.Rejection != nil {
			b = binary.AppendUvarint(append(b, kindRejected), uint64(m.Index))
			for _, s := range [...]string{string(m.Rejection.Reason), m.Rejection.Field, m.Rejection.Value, m.Rejection.Remedy, m.Raw} {
				b = appendText(b, s)
			}
			continue
		}
		var err error
		if text, err = m.Record.AppendJSON(text[:0]); err != nil {
			return nil, fmt.Errorf("record %d: %w", m.Index, err)
		}
		raw := m.Raw
		if raw == string(text) {
			raw = ""
		}
		b = binary.AppendUvarint(append(b, kindRecord), uint64(m.Index))
		b = appendText(appendText(b, text), raw)
	}
	return b, nil
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeEntry reads what encode wrote, and rejects anything else.
func decodeEntry(b []byte) (entry, error) {
	var e entry
	if len(b) == 0 {
		return e, errors.New("the entry is empty")
	}
	if b[0] != entryVersion {
		return e, errVersion(b[0])
	}
	d := decoder{bytes: b, text: string(b), at: 1}
	e.at = time.UnixMilli(int64(d.number(1 << 53)))
	e.origin, e.protocol = d.string(), d.string()
	if d.err == nil && !slices.Contains(protocol.Names, e.protocol) {
		d.err = fmt.Errorf("unknown protocol %q", e.protocol)
	}
	count := d.number(uint64(len(b)))
	for range count {
		if d.err != nil {
			break
		}
		e.messages = append(e.messages, d.message())
	}
	switch {
	case d.err != nil:
		return entry{}, d.err
	case len(e.messages) == 0:
		return entry{}, errors.New("the entry has no records")
	case d.at != len(b):
		return entry{}, fmt.Errorf("%d bytes after the last record", len(b)-d.at)
	}
	return e, nil
}

// decoder reads an entry. After its first error it returns zero values.
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
		d.err = fmt.Errorf("the text at byte %d is truncated", d.at)
	}
	if d.err != nil {
		return ""
	}
	d.at += n
	return d.text[d.at-n : d.at]
}

func (d *decoder) message() protocol.Message {
	kind := d.number(kindRejected)
	m := protocol.Message{Index: int(d.number(uint64(len(d.bytes)) << 20))}
	if kind == kindRejected {
		m.Rejection = &telemetry.Rejection{Reason: telemetry.Reason(d.string()), Field: d.string(), Value: d.string(), Remedy: d.string()}
		m.Raw = d.string()
		if d.err == nil && !slices.Contains(telemetry.Reasons, m.Rejection.Reason) {
			d.err = fmt.Errorf("unknown reason %q", m.Rejection.Reason)
		}
		return m
	}
	text := d.string()
	m.Raw = d.string()
	if d.err != nil {
		return m
	}
	if m.Raw == "" {
		m.Raw = text
	}
	record, rejection := telemetry.ParseJSON([]byte(text), "")
	if rejection != nil {
		d.err = rejection
	}
	m.Record = record
	return m
}
