// Package pipeline moves records from sources through validation to the writer over bounded queues, and acknowledges
// them to their source once they are durable. It owns the interfaces that sources and the writer implement.
package pipeline

import (
	"context"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Trusted is the sender of records that may name any fleet: an operator, a token of all fleets, a source without fleets of
// its own.
const Trusted = "*"

// Item is one record as a source read it.
type Item struct {
	telemetry.Record
	Sender   string // the only fleet that the sender may write to, or Trusted; empty: unknown, so it is the fleet of the record
	Position int64  // place in the batch's origin: line, offset or index
	Raw      string // the record as it came, for the dead letters; empty if it never was text

	// AcceptedMs is when its sender was answered that it is accepted, in Unix milliseconds: it is checked at that time,
	// however long it waited since. 0 is now.
	AcceptedMs int64

	// Hash is the record's PayloadHash. Validation sets it.
	Hash uint64

	// Conflict says that an earlier record had the same device and time and another payload. The record is written too, so
	// that the store settles on the same one in whatever order they come, but it counts as a duplicate and not as stored.
	Conflict bool
}

// Rejected is one record that is not stored, with the reason.
type Rejected struct {
	*telemetry.Rejection
	Sender   string // as that of an Item
	Position int64
	Raw      string

	// Fields has the record's values by the names of telemetry.Fields, as far as the source could parse the raw text, such
	// that telemetry.ParseJSON reads them: reprocessing does not need the source's settings. nil where nothing was parsed.
	Fields map[string]string
}

// Batch is a unit of work from a source. Once emitted, it belongs to the pipeline.
type Batch struct {
	Origin   string     // file name, topic and partition, or request id: what positions refer to
	Sender   string     // of records without one of their own
	Lane     string     // lanes take turns at the writer; the source bounds what it has in each, but for the one without a name
	Items    []Item     // records to store
	Rejected []Rejected // what the source could not read as a record
	Accepted time.Time  // when the source accepted them; zero is when the batch is emitted
	// Done is called once, when every record of the batch is durable: stored, or a dead letter. It is never called for a
	// batch that was not stored. It must not block.
	Done func(Outcome)

	durable func() // ends its delay
}

// Outcome counts what became of a batch's records.
type Outcome struct {
	Stored     int // records written, each counted once
	Duplicates int // records whose device and time were seen before
	Rejected   []Rejected
}

// Source produces batches until its input or ctx ends. Run returns nil in both cases, and only after its last emit
// returned; an error means that the source can't go on. emit blocks while the pipeline is full.
type Source interface {
	Name() string // label of the source's metrics: csvfile, replay, generator, …
	Run(ctx context.Context, emit func(Batch) error) error
}

// Validator decides which records are stored.
type Validator interface {
	// Validate checks a record at the time nowMs (Unix milliseconds) and completes it. It returns the hash of the payload
	// and whether the record was seen before, or a rejection.
	Validate(r *telemetry.Record, nowMs int64) (payload uint64, seen telemetry.Seen, rejection *telemetry.Rejection)
}

// ValidBatch has the records of a batch that passed validation. They refer to none of the source's text.
type ValidBatch struct {
	Items []Item
	Done  func() // called once, when all of them are durable; never when they are not
	// Reject makes dead letters of records that the writer does not store, in place of Items. It returns when they are durable.
	Reject func(ctx context.Context, rejected []RejectedItem) error

	lane string
}

// RejectedItem is a valid record that is not stored, with the reason.
type RejectedItem struct {
	*Item
	*telemetry.Rejection
}

// Writer stores batches until in is closed, and returns when all of them are durable. It returns early only with an
// error: ctx ended or a write can't succeed.
type Writer interface {
	Run(ctx context.Context, in <-chan ValidBatch) error
}

// DeadLetters keeps rejected records. Append returns once they are durable. It gives up when ctx ends.
type DeadLetters interface {
	Append(ctx context.Context, source, origin string, rejected []Rejected) error
}
