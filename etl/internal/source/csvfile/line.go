package csvfile

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

// lineParser makes records of a file's lines.
type lineParser struct {
	*columns
	splitter
	names names
}

// parse reads one line without its end into a record that holds the file's fixed values. Bounds are not checked here.
func (p *lineParser) parse(line string, r *telemetry.Record) *telemetry.Rejection {
	if len(line) > telemetry.MaxRawLen {
		return telemetry.Reject(telemetry.TooLarge, "", "",
			fmt.Sprintf("the line is longer than %d bytes: leave out columns that are no field", telemetry.MaxRawLen))
	}
	if !isText(line) {
		return telemetry.Reject(telemetry.Malformed, "", "", "the line is no UTF-8 text: save the file as UTF-8")
	}
	values, err := p.split(line)
	if err != nil {
		return telemetry.Reject(telemetry.Malformed, "", "", err.Error())
	}
	if len(values) != p.count {
		return telemetry.Reject(telemetry.Malformed, "", "", fmt.Sprintf(
			"the line has %d fields, the header has %d: give as many, and put a field with a comma in quotes", len(values), p.count))
	}
	*r = p.fixed
	for _, c := range p.found {
		value := values[c.index]
		if c.required && strings.TrimSpace(value) == "" {
			return telemetry.Reject(telemetry.MissingField, c.field, "", "fill in the column, or give a fixed value with --set")
		}
		if err := r.SetText(c.field, value, p.times); err != nil {
			return rejection(err)
		}
	}
	r.DeviceID, r.FleetID, r.Zone = p.names.own(r.DeviceID), p.names.own(r.FleetID), p.names.own(r.Zone)
	return nil
}

// apart is what a line says of each field, for the dead letters, so that it can be replayed without this file's columns,
// fixed values, layout of times and shift. It is nil for a line that can't be split into the columns.
func (p *lineParser) apart(line string, shiftMs int64) map[string]string {
	if len(line) > telemetry.MaxRawLen || !isText(line) {
		return nil
	}
	values, err := p.split(line)
	if err != nil || len(values) != p.count {
		return nil
	}
	texts := maps.Clone(p.set)
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
		if ms, err := p.times.Parse(text); err == nil {
			texts[telemetry.FieldTimestamp] = pipeline.TimeText(ms + shiftMs)
		}
	}
	return texts
}

func rejection(err error) *telemetry.Rejection {
	var r *telemetry.Rejection
	if errors.As(err, &r) {
		return r
	}
	return telemetry.Reject(telemetry.Malformed, "", "", err.Error())
}

// isText tells whether s is UTF-8 without a NUL byte. Cassandra takes no other text, and JSON has none.
func isText(s string) bool {
	return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

// names gives equal names one string of their own, so that whoever keeps the name of a device doesn't keep the block
// of lines that it was read from.
type names map[string]string

// maxNames bounds the memory for names; beyond it they are forgotten and learned anew.
const maxNames = 1 << 16

func (n names) own(s string) string {
	if name, ok := n[s]; ok {
		return name
	}
	if len(s) > telemetry.MaxNameLen {
		return s // it will be refused
	}
	if len(n) >= maxNames {
		clear(n)
	}
	s = strings.Clone(s)
	n[s] = s
	return s
}

// splitter splits lines into fields. What it returns is good until the next call.
type splitter struct {
	values []string
	quoted *csv.Reader
	line   strings.Reader // what quoted reads
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

// splitQuoted splits a line that has a quote as RFC 4180 says, but for line ends, which can't be quoted.
func (s *splitter) splitQuoted(line string) ([]string, error) {
	if s.quoted == nil {
		s.quoted = csv.NewReader(&s.line)
		s.quoted.FieldsPerRecord = -1
		s.quoted.ReuseRecord = true
	}
	s.line.Reset(line)
	values, err := s.quoted.Read()
	if err != nil {
		_, _ = io.Copy(io.Discard, &s.line) // what is left must not stand before the next line
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
		return fmt.Errorf("stray quote at byte %d: put the whole field in quotes and double the quotes in it", p.Column)
	}
	return fmt.Errorf("wrong or unclosed quote at byte %d: close it at the field's end, and double the quotes in the field; "+
		"a field can't go on in the next line", p.Column)
}
