package kafka

import (
	"bytes"
	"encoding/json"
	"regexp"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// read adds what a value holds to a batch: one JSON object, or one a line. It gives the reason to skip a value that
// holds none, or "".
func read(b *pipeline.Batch, r *kgo.Record) (skipped string) {
	if r.Value == nil {
		return skipTombstone
	}
	text := bytes.TrimSpace(r.Value)
	if len(text) == 0 {
		return skipEmpty
	}
	// An object that is spread over lines is valid as a whole, and several in lines never are.
	if !bytes.ContainsRune(text, '\n') || json.Valid(text) {
		add(b, r.Offset, r.Value)
		return ""
	}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			add(b, r.Offset, line)
		}
	}
	return ""
}

// add keeps a copy of the text: a piece of it would hold on to the whole fetch.
func add(b *pipeline.Batch, offset int64, text []byte) {
	record, rejection := telemetry.ParseJSON(text, "")
	if rejection != nil {
		b.Rejected = append(b.Rejected, pipeline.Rejected{Rejection: rejection, Position: offset, Raw: string(text)})
		return
	}
	b.Items = append(b.Items, pipeline.Item{Record: record, Position: offset, Raw: string(text)})
}

// deviceOf finds the device also in a text that is no valid JSON.
var deviceOf = regexp.MustCompile(`"` + telemetry.FieldDeviceID + `"\s*:\s*"([A-Za-z0-9._:-]{1,128})"`)

// keyOf is the key of a record's text: its device, or nil where none can be read.
func keyOf(text []byte) []byte {
	if m := deviceOf.FindSubmatch(text); m != nil {
		return m[1]
	}
	return nil
}
