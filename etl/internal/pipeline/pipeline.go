// Package pipeline moves records from sources through the transform to the loader over bounded queues, and tells each
// source when its records are durable. It owns the interfaces at which sources and loaders meet.
package pipeline

import (
	"context"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Item is one record as a source read it.
type Item struct {
	telemetry.Record
	Position int64  // where in the batch's origin: line, offset or index
	Raw      string // the record as it came, for the dead letters; empty when it never had a text

	// Hash is the record's PayloadHash, set by the transform.
	Hash uint64

	// Again marks a record whose device and instant were taken already with another payload. It is stored too, so that
	// the store can settle on the same one whatever their order, but it is a duplicate and not counted as stored.
	Again bool
}

// Refused is one record that is not stored, with the reason.
type Refused struct {
	*telemetry.Rejection
	Position int64
	Raw      string

	// Fields is the record by the names of telemetry.Fields, as far as the source could take the raw text apart, such that
	// telemetry.ParseJSON reads it: replaying it takes nothing of what the source was told. nil where it could not.
	Fields map[string]string
}

// Batch is what a source hands over at once. It belongs to the pipeline from then on.
type Batch struct {
	Origin   string    // file name, topic and partition, request id: what positions refer to
	Items    []Item    // records to be stored
	Refused  []Refused // what the source could not read as a record
	Accepted time.Time // when the source took them in
	// Done is called once, when every record of the batch is durable: stored, or among the dead letters. It is never
	// called for a batch that was not stored. It must not block.
	Done func(Outcome)
}

// Outcome is what became of a batch's records.
type Outcome struct {
	Stored     int // records written, each of them once
	Duplicates int // records of a device and instant that had been taken already
	Refused    []Refused
}

// Source produces batches until its input ends or ctx does. Run returns nil in both cases, and only after its last
// emit returned; an error means that the source can't go on. emit blocks while the pipeline is full.
type Source interface {
	Name() string // label of the source's metrics: csvfile, replay, generator, …
	Run(ctx context.Context, emit func(Batch) error) error
}

// Clean is a batch after the transform: the records that are to be stored. They hold on to none of the source's text.
type Clean struct {
	Items []Item
	Done  func() // called once, when they are all durable; never when they are not
}

// Loader stores batches until in is closed, and returns when all of them are durable. It returns early only with an
// error, when ctx ends or a write can't succeed.
type Loader interface {
	Run(ctx context.Context, in <-chan Clean) error
}

// DeadLetters keeps refused records. Append returns once they are on disk.
type DeadLetters interface {
	Append(source, origin string, refused []Refused) error
}
