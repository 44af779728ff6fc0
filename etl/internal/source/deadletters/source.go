// Package deadletters gives records that were refused to the pipeline once more, after what was wrong with them, or with
// the settings that refused them, was mended. A record keeps its device and time, so replaying it again changes nothing.
package deadletters

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

// Name is the source's name, in metrics, and the origin of what is refused once more.
const Name = "deadletters"

// Letter is a refused record.
type Letter struct {
	ID     [16]byte          // names it
	Number int64             // its place among the dead letters
	Raw    string            // as it came
	Fields map[string]string // by name, where the text was taken apart
}

// Options say what is replayed.
type Options struct {
	Letters iter.Seq2[Letter, error]
	Set     map[string]string // values by field that take the place of what the records say; empty takes the field away
	// Settled is told, between batches and by Settle, of letters that need no replay any more: their records are stored, or
	// among the dead letters once more.
	Settled func([][16]byte) error
	// Passed is told of each letter that can't be replayed, and why. It stays as it is.
	Passed func(letter Letter, why string)
}

// batchLetters is how many letters go into a batch at the most.
const batchLetters = 500

// Source replays dead letters. It implements pipeline.Source.
type Source struct {
	o Options

	mu      sync.Mutex
	settled [][16]byte
}

// New makes a source. A field to be set that is none, or whose value no record could have, is an error that names it.
func New(o Options) (*Source, error) {
	for _, field := range slices.Sorted(maps.Keys(o.Set)) {
		if err := checkSet(field, strings.TrimSpace(o.Set[field])); err != nil {
			return nil, fmt.Errorf("--set %s=%s: %w", field, o.Set[field], err)
		}
	}
	return &Source{o: o}, nil
}

func checkSet(field, value string) error {
	switch {
	case !slices.Contains(telemetry.Fields, field):
		return fmt.Errorf("there is no field %q: the fields are %s", field, strings.Join(telemetry.Fields, ", "))
	case value == "" && slices.Contains(telemetry.RequiredFields, field):
		return fmt.Errorf("the value is missing, and no record can do without %s: give one", field)
	case value != "" && (field == telemetry.FieldDeviceID || field == telemetry.FieldFleetID || field == telemetry.FieldZone) && !telemetry.ValidName(value):
		return fmt.Errorf("every record would be refused: give 1 to %d characters of A-Za-z0-9._:-", telemetry.MaxNameLen)
	}
	return new(telemetry.Record).SetText(field, value, telemetry.TimeFormat{})
}

// Name implements pipeline.Source.
func (s *Source) Name() string { return Name }

// Run implements pipeline.Source. It ends with the letters.
func (s *Source) Run(ctx context.Context, emit func(pipeline.Batch) error) error {
	var batch pipeline.Batch
	var ids [][16]byte
	send := func() error {
		if len(ids) == 0 {
			return nil
		}
		sent := ids
		batch.Origin = Name
		batch.Done = func(pipeline.Outcome) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.settled = append(s.settled, sent...)
		}
		b := batch
		batch, ids = pipeline.Batch{}, nil
		if err := s.Settle(); err != nil {
			return err
		}
		return emit(b)
	}
	for letter, err := range s.o.Letters {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		text, why := s.text(letter)
		if why != "" {
			s.o.Passed(letter, why)
			continue
		}
		record, rejection := telemetry.ParseJSON(text, "")
		if rejection != nil {
			batch.Rejected = append(batch.Rejected, pipeline.Rejected{
				Rejection: rejection, Position: letter.Number, Raw: letter.Raw, Fields: fieldsIn(text),
			})
		} else {
			batch.Items = append(batch.Items, pipeline.Item{Record: record, Position: letter.Number, Raw: letter.Raw})
		}
		if ids = append(ids, letter.ID); len(ids) == batchLetters {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// Settle tells of the letters that were settled since it last did. It is for the end, when Run has returned and the
// pipeline has.
func (s *Source) Settle() error {
	s.mu.Lock()
	ids := s.settled
	s.settled = nil
	s.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	return s.o.Settled(ids)
}

// text gives the record of a letter as a JSON object of the known fields, or why it has none.
func (s *Source) text(letter Letter) (text []byte, why string) {
	fields := map[string]json.RawMessage{}
	switch {
	case len(letter.Fields) > 0:
		for name, value := range letter.Fields {
			fields[name] = quoted(value)
		}
	case strings.HasPrefix(strings.TrimSpace(letter.Raw), "{"):
		var err error
		if fields, err = known(letter.Raw); err != nil {
			return nil, "its text is no valid JSON: " + err.Error()
		}
	default:
		return nil, "its text could not be taken apart into fields: mend it where it came from and send it again"
	}
	maps.DeleteFunc(fields, func(name string, _ json.RawMessage) bool { return !slices.Contains(telemetry.Fields, name) })
	for name, value := range s.o.Set {
		fields[name] = quoted(value)
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, "its text is no valid JSON: " + err.Error()
	}
	return text, ""
}

// known is what an object says of each field, by the names that telemetry.ParseJSON takes for it: in upper or lower case,
// and the last of several.
func known(object string) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(object), &fields); err != nil {
		return nil, err
	}
	clear(fields)
	d := json.NewDecoder(strings.NewReader(object))
	_, _ = d.Token() // what it reads was read before
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

// fieldsIn is the texts of an object's fields that are texts or numbers.
func fieldsIn(object []byte) map[string]string {
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
