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
	// AllowForbidden lets records into fleets that their sender may not write to.
	AllowForbidden bool
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
		if err := new(telemetry.Record).SetConstant(field, o.Set[field], telemetry.TimeFormat{}); err != nil {
			return nil, fmt.Errorf("--set %s=%s: %w", field, o.Set[field], err)
		}
	}
	return &Reprocessor{o: o}, nil
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
		if rejection == nil {
			why = e.forbidden(record.FleetID)
		}
		if why != "" && !s.o.AllowForbidden {
			s.o.Skipped(e, why)
			continue
		}
		if why != "" {
			e.Sender = pipeline.Trusted // the operator decides
		}
		if rejection != nil {
			batch.Rejected = append(batch.Rejected, pipeline.Rejected{
				Rejection: rejection, Sender: e.Sender, Position: e.Number, Raw: e.Raw, Fields: textsOf(text),
			})
		} else {
			batch.Items = append(batch.Items, pipeline.Item{Record: record, Sender: e.Sender, Position: e.Number, Raw: e.Raw})
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
		if fields, err = telemetry.JSONFields(e.Raw); err != nil {
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

func quoted(s string) json.RawMessage {
	text, _ := json.Marshal(strings.TrimSpace(s)) // a string always has JSON
	return text
}

// textsOf returns the values of an object that are strings or numbers.
func textsOf(object []byte) map[string]string {
	var values map[string]json.RawMessage
	if json.Unmarshal(object, &values) != nil {
		return nil
	}
	texts := map[string]string{}
	for field, value := range values {
		if text, rejection := telemetry.JSONText(field, value); rejection == nil && text != "" {
			texts[field] = text
		}
	}
	return texts
}
