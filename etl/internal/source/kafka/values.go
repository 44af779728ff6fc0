package kafka

import (
	"bytes"
	"encoding/json"
	"regexp"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// parse adds the records of a value to a batch: one JSON object, or one per line. It returns the reason to skip a value
// without a record, or "".
func parse(b *pipeline.Batch, r *kgo.Record) (skipped string) {
	switch {
	case r.Attrs.IsControl():
		return skipMarker
	case r.Value == nil:
		return skipTombstone
	}
	text := bytes.TrimSpace(r.Value)
	if len(text) == 0 {
		return skipEmpty
	}
	// One object may span lines. Several objects are never valid as a whole.
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

// add copies the text: a slice of it would keep the whole fetch in memory.
func add(b *pipeline.Batch, offset int64, text []byte) {
	record, rejection := telemetry.ParseJSON(text, "")
	if rejection != nil {
		b.Rejected = append(b.Rejected, pipeline.Rejected{Rejection: rejection, Position: offset, Raw: string(text)})
		return
	}
	b.Items = append(b.Items, pipeline.Item{Record: record, Position: offset, Raw: string(text)})
}

// deviceOf finds the device even in text that is not valid JSON.
var deviceOf = regexp.MustCompile(`"` + telemetry.FieldDeviceID + `"\s*:\s*"([A-Za-z0-9._:-]{1,128})"`)

// keyOf returns the key for a record's text: its device, or nil when there is none.
func keyOf(text []byte) []byte {
	if m := deviceOf.FindSubmatch(text); m != nil {
		return m[1]
	}
	return nil
}
