package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// SourceName is the name of the Reprocessor in metrics, and the origin of records that are rejected again.
const SourceName = "deadletters"

// ReprocessOptions say what is reprocessed.
type ReprocessOptions struct {
	Entries iter.Seq2[Entry, error]
	Set     map[string]string // values by field to set in every record; an empty one removes the field
	// Done receives dead letters whose records are stored, or rejected again as a new dead letter. Run calls it between
	// batches, Flush at the end.
	Done func([]ID) error
	// Skipped receives each dead letter that can't be reprocessed, and why. It stays open.
	Skipped func(e Entry, why string)
}

// batchEntries is the largest number of dead letters per batch.
const batchEntries = 500

// Reprocessor sends the records of dead letters through the pipeline again. It implements pipeline.Source.
type Reprocessor struct {
	o ReprocessOptions

	mu   sync.Mutex
	done []ID // not passed to o.Done yet
}

// NewReprocessor checks the options. An unknown field to set, or a value that no record can have, is an error that names
// it.
func NewReprocessor(o ReprocessOptions) (*Reprocessor, error) {
	for _, field := range slices.Sorted(maps.Keys(o.Set)) {
		if err := checkSet(field, strings.TrimSpace(o.Set[field])); err != nil {
			return nil, fmt.Errorf("--set %s=%s: %w", field, o.Set[field], err)
		}
	}
	return &Reprocessor{o: o}, nil
}

func checkSet(field, value string) error {
	switch {
	case !slices.Contains(telemetry.Fields, field):
		return fmt.Errorf("unknown field %q: the fields are %s", field, strings.Join(telemetry.Fields, ", "))
	case value == "" && slices.Contains(telemetry.RequiredFields, field):
		return fmt.Errorf("the value is missing, and %s is required: give one", field)
	case value != "" && (field == telemetry.FieldDeviceID || field == telemetry.FieldFleetID || field == telemetry.FieldZone) && !telemetry.ValidName(value):
		return fmt.Errorf("every record would be rejected: give 1 to %d characters of A-Za-z0-9._:-", telemetry.MaxNameLen)
	}
	return new(telemetry.Record).SetText(field, value, telemetry.TimeFormat{})
}

// Name implements pipeline.Source.
func (s *Reprocessor) Name() string { return SourceName }

// Run implements pipeline.Source. It ends with the entries.
func (s *Reprocessor) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	batch := pipeline.Batch{Origin: SourceName}
	var ids []ID
	send := func() error {
		if len(ids) == 0 {
			return nil
		}
		sent := ids
		batch.Done = func(pipeline.Outcome) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.done = append(s.done, sent...)
		}
		b := batch
		batch, ids = pipeline.Batch{Origin: SourceName}, nil
		if err := s.Flush(); err != nil {
			return err
		}
		return emit(b)
	}
	for e, err := range s.o.Entries {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		text, why := s.text(&e)
		if why != "" {
			s.o.Skipped(e, why)
			continue
		}
		record, rejection := telemetry.ParseJSON(text, "")
		if rejection != nil {
			batch.Rejected = append(batch.Rejected, pipeline.Rejected{
				Rejection: rejection, Position: e.Number, Raw: e.Raw, Fields: fieldsOf(text),
			})
		} else {
			batch.Items = append(batch.Items, pipeline.Item{Record: record, Position: e.Number, Raw: e.Raw})
		}
		if ids = append(ids, e.ID); len(ids) == batchEntries {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// Flush passes to Done what became durable since the last call. Call it when the pipeline has ended.
func (s *Reprocessor) Flush() error {
	s.mu.Lock()
	ids := s.done
	s.done = nil
	s.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	return s.o.Done(ids)
}

// text returns the record of a dead letter as a JSON object of the known fields, or why there is none.
func (s *Reprocessor) text(e *Entry) (text []byte, why string) {
	fields := map[string]json.RawMessage{}
	switch {
	case len(e.Record) > 0:
		for name, value := range e.Record {
			fields[name] = quoted(value)
		}
	case strings.HasPrefix(strings.TrimSpace(e.Raw), "{"):
		var err error
		if fields, err = parseRaw(e.Raw); err != nil {
			return nil, "its raw text is not valid JSON: " + err.Error()
		}
	default:
		return nil, "its raw text could not be parsed into fields: fix it at the sender and send it again"
	}
	maps.DeleteFunc(fields, func(name string, _ json.RawMessage) bool { return !slices.Contains(telemetry.Fields, name) })
	for name, value := range s.o.Set {
		fields[name] = quoted(value)
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, "its raw text is not valid JSON: " + err.Error()
	}
	return text, ""
}

// parseRaw returns the values of an object by field, as telemetry.ParseJSON sees them: names in any case, and the last
// of several equal names.
func parseRaw(object string) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(object), &fields); err != nil {
		return nil, err
	}
	clear(fields)
	d := json.NewDecoder(strings.NewReader(object))
	_, _ = d.Token() // the text is valid: it was unmarshaled before
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		_ = d.Decode(&value)
		if i := slices.IndexFunc(telemetry.Fields, func(field string) bool { return strings.EqualFold(field, name.(string)) }); i >= 0 {
			fields[telemetry.Fields[i]] = value
		}
	}
	return fields, nil
}

func quoted(s string) json.RawMessage {
	text, _ := json.Marshal(strings.TrimSpace(s)) // a string always has JSON
	return text
}

// fieldsOf returns the values of an object that are strings or numbers.
func fieldsOf(object []byte) map[string]string {
	var values map[string]json.RawMessage
	if json.Unmarshal(object, &values) != nil {
		return nil
	}
	fields := map[string]string{}
	for name, value := range values {
		var s string
		var n json.Number
		switch {
		case json.Unmarshal(value, &s) == nil && s != "":
			fields[name] = s
		case json.Unmarshal(value, &n) == nil && n != "":
			fields[name] = n.String()
		}
	}
	return fields
}
