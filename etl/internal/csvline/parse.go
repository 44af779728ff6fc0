package csvline

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Parser parses the lines of a file into records.
type Parser struct {
	*Columns
	splitter
}

// NewParser returns a parser of lines with the given columns.
func NewParser(columns *Columns) *Parser { return &Parser{Columns: columns} }

// Parse parses a line without its newline into r, whose texts are parts of the line. It does not check bounds.
func (p *Parser) Parse(line string, r *telemetry.Record) *telemetry.Rejection {
	if len(line) > telemetry.MaxRawLen {
		return telemetry.Reject(telemetry.TooLarge, "", "",
			fmt.Sprintf("the line is longer than %d bytes: remove columns that are not fields", telemetry.MaxRawLen))
	}
	if !isText(line) {
		return telemetry.Reject(telemetry.Malformed, "", "", "the line is not UTF-8 text: save the file as UTF-8")
	}
	values, err := p.split(line)
	if err != nil {
		return telemetry.Reject(telemetry.Malformed, "", "", err.Error())
	}
	if len(values) != p.count {
		return telemetry.Reject(telemetry.Malformed, "", "", fmt.Sprintf(
			"the line has %d fields, the header has %d: give the same number, and quote fields that contain a comma", len(values), p.count))
	}
	*r = p.mapping.fixed
	for _, c := range p.found {
		value := values[c.index]
		if c.required && strings.TrimSpace(value) == "" {
			return telemetry.Reject(telemetry.MissingField, c.field, "", "fill the column, or set a constant value with --set")
		}
		if err := r.SetText(c.field, value, p.mapping.times); err != nil {
			return err.(*telemetry.Rejection) //nolint:errorlint // SetText returns no other type
		}
	}
	return nil
}

// Texts returns the text of each field, for dead letters: they are reprocessed without the columns, constant values, time
// layout and shift of this file. It is nil for a line that can't be split into the columns.
func (p *Parser) Texts(line string, shiftMs int64) map[string]string {
	if len(line) > telemetry.MaxRawLen || !isText(line) {
		return nil
	}
	values, err := p.split(line)
	if err != nil || len(values) != p.count {
		return nil
	}
	texts := maps.Clone(p.mapping.set)
	if texts == nil {
		texts = map[string]string{}
	}
	for _, c := range p.found {
		texts[c.field] = values[c.index]
	}
	for field, text := range texts {
		texts[field] = strings.TrimSpace(text)
		if texts[field] == "" {
			delete(texts, field)
		}
	}
	if text, ok := texts[telemetry.FieldTimestamp]; ok {
		if ms, err := p.mapping.times.Parse(text); err == nil {
			texts[telemetry.FieldTimestamp] = pipeline.TimeText(ms + shiftMs)
		}
	}
	return texts
}

// isText returns whether s is UTF-8 without a NUL byte. Cassandra and JSON accept no other text.
func isText(s string) bool {
	return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

// splitter splits lines into fields. Its result is valid until the next call.
type splitter struct {
	values []string
	quoted *csv.Reader
	line   strings.Reader // input of quoted
}

func (s *splitter) split(line string) ([]string, error) {
	if strings.IndexByte(line, '"') >= 0 {
		return s.splitQuoted(line)
	}
	s.values = s.values[:0]
	for {
		value, rest, more := strings.Cut(line, ",")
		s.values = append(s.values, value)
		if !more {
			return s.values, nil
		}
		line = rest
	}
}

// splitQuoted splits a line with quotes by RFC 4180, except that a newline can't be quoted.
func (s *splitter) splitQuoted(line string) ([]string, error) {
	if s.quoted == nil {
		s.quoted = csv.NewReader(&s.line)
		s.quoted.FieldsPerRecord = -1
		s.quoted.ReuseRecord = true
	}
	s.line.Reset(line)
	values, err := s.quoted.Read()
	if err != nil {
		_, _ = io.Copy(io.Discard, &s.line) // the rest must not precede the next line
		return nil, quoteError(err)
	}
	return values, nil
}

func quoteError(err error) error {
	var p *csv.ParseError
	if !errors.As(err, &p) {
		return err
	}
	if errors.Is(p.Err, csv.ErrBareQuote) {
		return fmt.Errorf("stray quote at byte %d: quote the whole field and double the quotes in it", p.Column)
	}
	return fmt.Errorf("wrong or unclosed quote at byte %d: close it at the end of the field, and double the quotes in the field; "+
		"a field can't span lines", p.Column)
}
