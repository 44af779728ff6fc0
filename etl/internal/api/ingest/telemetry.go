package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

var errTooMany = errors.New("too many records")

// telemetry takes records in our own form: an object, an array of them, or one a line.
func (c *call) telemetry() *problem {
	if p := c.authenticate("", "Bearer"); p != nil {
		return p
	}
	lines, p := c.contentType()
	if p != nil {
		return p
	}
	text, p := c.body()
	if p != nil {
		return p
	}
	texts, err := split(text, lines, c.Limits.MaxRecords)
	switch {
	case errors.Is(err, errTooMany):
		return c.tooLarge()
	case err != nil:
		return refuse(http.StatusBadRequest, "malformed", "%v; nothing of it was taken", err)
	}
	fleet := c.fleet()
	records := make([]received, len(texts))
	for i, text := range texts {
		r := &records[i]
		r.index = i
		r.record, r.rejection = telemetry.ParseJSON(text, fleet)
		r.raw = string(text)
		if r.rejection == nil || r.rejection.Field != "" {
			r.raw = withProvenance(r.raw, provenance{fleet: fleetOwed(text, &r.record, r.rejection, fleet)})
		}
		r.raw = cut(r.raw)
	}
	a, p := c.take(protocolTelemetry, records, c.r.URL.Query().Get("verbose") == "1")
	if p != nil {
		return p
	}
	status := http.StatusOK
	if a.Refused > 0 && a.Refused == len(records) {
		status = http.StatusUnprocessableEntity
	}
	writeJSON(c.w, status, a)
	return nil
}

// contentType refuses what is surely no JSON, and tells whether there is one record a line whatever the text looks
// like. Many senders say nothing, or what their library says for them.
func (c *call) contentType() (lines bool, p *problem) {
	header := c.r.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(header)
	switch {
	case kind == "application/x-ndjson", kind == "application/ndjson", kind == "application/jsonl", kind == "application/x-jsonlines":
		return true, nil
	case header == "", strings.Contains(kind, "json"), kind == "text/plain", kind == "application/octet-stream",
		kind == "application/x-www-form-urlencoded": // what curl says
		return false, nil
	default:
		return false, refuse(http.StatusUnsupportedMediaType, "unsupported_type", "Content-Type %q is not read here: send application/json or application/x-ndjson", header)
	}
}

// split cuts a body into its records. An array that breaks off is an error for all of it. Of lines, each stands for
// itself, so that a bad one costs none of the others. A text that begins as one object over several lines is that, not
// lines.
func split(text []byte, lines bool, most int) ([][]byte, error) {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	switch {
	case len(text) == 0:
		return nil, errors.New("the body is empty: send a JSON object, an array of them, or one on each line")
	case lines:
		return splitLines(text, most)
	case text[0] == '[':
		return splitArray(text, most)
	case text[0] != '{':
		if bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
			return nil, errors.New("the body is gzip: say so with Content-Encoding: gzip")
		}
		return nil, errors.New("the body is no JSON object, no array of them, and not one on each line")
	}
	first, _, several := bytes.Cut(text, []byte("\n"))
	if first = bytes.TrimSpace(first); several && first[len(first)-1] == '}' {
		return splitLines(text, most)
	}
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		if !several && first[len(first)-1] == '}' {
			return [][]byte{text}, nil // a whole record that is refused, as it would be among others
		}
		return nil, brokenJSON(err)
	}
	return [][]byte{text}, nil
}

func splitLines(text []byte, most int) ([][]byte, error) {
	var records [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(records) == most {
			return nil, errTooMany
		}
		records = append(records, line)
	}
	return records, nil
}

func splitArray(text []byte, most int) ([][]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return nil, brokenJSON(err)
	}
	var records [][]byte
	for d.More() {
		if len(records) == most {
			return nil, errTooMany
		}
		var record json.RawMessage
		if err := d.Decode(&record); err != nil {
			return nil, brokenJSON(err)
		}
		records = append(records, record)
	}
	if _, err := d.Token(); err != nil {
		return nil, brokenJSON(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the array: send one array")
	}
	return records, nil
}

func brokenJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON breaks off: send it whole")
	}
	return errors.New("the JSON is broken: " + err.Error())
}

// cut bounds what is kept of a record that is far too long to be one.
func cut(raw string) string { return raw[:min(len(raw), telemetry.MaxRawLen)] }
