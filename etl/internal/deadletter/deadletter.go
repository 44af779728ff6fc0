// Package deadletter keeps rejected records, each with the reason, and reprocesses them once the cause is fixed.
//
//	pipeline ─► Route ─► File, rotated ─► Queue ─► Filter ─► Reprocessor ─► pipeline
//	                 └─► Kafka topic                  └─► list
//
// The queue notes which dead letters are reprocessed. A record keeps its device and time, so that storing it twice is harmless.
package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

// Entry is one dead letter: a line of JSON.
type Entry struct {
	Time     time.Time `json:"time"` // when the record was rejected
	Source   string    `json:"source"`
	Origin   string    `json:"origin"`   // file, topic or request: what Position refers to
	Position int64     `json:"position"` // line, offset or index there
	// Sender is the fleet that the sender could write to, or * for all of them.
	Sender string `json:"sender,omitempty"`
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
	Value  string `json:"value,omitempty"`
	Remedy string `json:"remedy"`
	Raw    string `json:"raw"` // the record as it came; the start of one that is too large

	// Record has the values by the names of telemetry.Fields, as far as the raw text could be parsed, in texts that
	// telemetry.ParseJSON reads.
	Record map[string]string `json:"record,omitempty"`

	// Set when the entry is read.
	ID          ID    `json:"-"`
	Number      int64 `json:"-"` // place among all lines of the directory, from 1
	Reprocessed bool  `json:"-"`
}

func newEntry(now time.Time, source, origin string, r *pipeline.Rejected) Entry {
	return Entry{
		Time: now.UTC(), Source: source, Origin: origin, Position: r.Position, Sender: r.Sender,
		Reason: string(r.Reason), Field: r.Field, Value: r.Value, Remedy: r.Remedy,
		Raw: strings.ToValidUTF8(r.Raw, "\uFFFD"), Record: r.Fields,
	}
}

// sourceAPI is the source whose senders have tokens.
const sourceAPI = "api"

// forbidden returns why the sender of a dead letter may not write to a fleet; empty when it may.
func (e *Entry) forbidden(fleet string) string {
	switch {
	case e.Sender == pipeline.Trusted, e.Sender == fleet, e.Sender == "" && e.Source != sourceAPI:
		return ""
	case e.Sender == "":
		return fmt.Sprintf("forbidden_fleet: fleet_id %q: the dead letter does not name its sender: check it, and give --allow-forbidden-fleet", fleet)
	default:
		return fmt.Sprintf("forbidden_fleet: fleet_id %q: its sender writes to fleet %s only: give --set fleet_id=%s or --allow-forbidden-fleet", fleet, e.Sender, e.Sender)
	}
}

// ID identifies a dead letter. It is a hash of the line, so it does not change when the file is rotated.
type ID [16]byte

// String returns 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

func idOf(line []byte) (id ID) {
	sum := sha256.Sum256(line)
	copy(id[:], sum[:])
	return id
}

// Filter selects dead letters. Zero fields select everything.
type Filter struct {
	Reasons, Sources []string
	Since, Until     time.Time // Until is excluded
	Limit            int       // the first so many
	Reprocessed      bool      // include reprocessed ones
}

// Select returns the entries that match the filter.
func (f *Filter) Select(entries iter.Seq2[Entry, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		n := 0
		for e, err := range entries {
			if err == nil && !f.matches(&e) {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
			if n++; n == f.Limit {
				return
			}
		}
	}
}

func (f *Filter) matches(e *Entry) bool {
	return (f.Reprocessed || !e.Reprocessed) && (len(f.Reasons) == 0 || slices.Contains(f.Reasons, e.Reason)) &&
		(len(f.Sources) == 0 || slices.Contains(f.Sources, e.Source)) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) && (f.Until.IsZero() || e.Time.Before(f.Until))
}

// Route sends the dead letters of some sources to a place of their own.
type Route struct {
	BySource map[string]pipeline.DeadLetters
	Default  pipeline.DeadLetters // for all other sources
}

// Append implements pipeline.DeadLetters.
func (r Route) Append(ctx context.Context, source, origin string, rejected []pipeline.Rejected) error {
	to := r.Default
	if own, ok := r.BySource[source]; ok {
		to = own
	}
	return to.Append(ctx, source, origin, rejected)
}
