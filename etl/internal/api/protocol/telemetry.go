package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Telemetry decodes records in our own format: an object, an array of objects, or one object per line. lines says that
// there is one per line, whatever the text looks like. More records than most are ErrTooMany. Any other error means that
// the body as a whole can't be read.
func Telemetry(body []byte, lines bool, d Defaults, most int) ([]Message, error) {
	texts, err := split(body, lines, most)
	if err != nil {
		return nil, err
	}
	messages := make([]Message, len(texts))
	for i, text := range texts {
		r, rejection := telemetry.ParseJSON(text, d.Fleet)
		messages[i] = newMessage(string(text), r, rejection, d)
		messages[i].Index = i
	}
	return messages, nil
}

// splitMessages separates an array into its messages. Anything else, also a broken array, is one message.
func splitMessages(body []byte, most int) ([][]byte, error) {
	body = bytes.TrimSpace(body)
	if bytes.HasPrefix(body, []byte("[")) {
		if parts, err := splitArray(body, most); err == nil || errors.Is(err, ErrTooMany) {
			return parts, err
		}
	}
	return [][]byte{body}, nil
}

// split separates a body into its records. A broken array is an error for the whole body. Each line stands for itself, so
// that a bad one does not affect the others. A text that begins with one object over several lines is one record.
func split(text []byte, lines bool, most int) ([][]byte, error) {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	switch {
	case len(text) == 0:
		return nil, errors.New("the body is empty: send a JSON object, an array of objects, or one object per line")
	case lines:
		return splitLines(text, most)
	case text[0] == '[':
		return splitArray(text, most)
	case text[0] != '{':
		if bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
			return nil, errors.New("the body is gzip: send the header Content-Encoding: gzip")
		}
		return nil, errors.New("the body is not JSON: send an object, an array of objects, or one object per line")
	}
	first, _, several := bytes.Cut(text, []byte("\n"))
	if first = bytes.TrimSpace(first); several && first[len(first)-1] == '}' {
		return splitLines(text, most)
	}
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		if !several && first[len(first)-1] == '}' {
			return [][]byte{text}, nil // one record, rejected as it would be among others
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
			return nil, ErrTooMany
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
			return nil, ErrTooMany
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
		return errors.New("the JSON is incomplete: send all of it")
	}
	return errors.New("the JSON is broken: " + err.Error())
}
