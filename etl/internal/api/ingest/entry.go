package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/fxamacker/cbor/v2"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/protocol"
)

// entry is one request in the spool: the version, then the fields in CBOR. Records are already decoded and checked.
type entry struct {
	AcceptedMs int64  // Unix milliseconds
	Origin     string // ID of the request
	Sender     string // fleet of the token, or * for all fleets
	Messages   []protocol.Message
}

// entryVersion changes when earlier entries can't be read any more.
const entryVersion = 1

// errVersion is the error of an entry that another version of the program wrote.
var errVersion = fmt.Errorf("want version %d: empty the spool with the program that wrote it", entryVersion)

func (e *entry) encode() ([]byte, error) {
	text := bytes.NewBuffer(make([]byte, 0, e.memory()/2))
	text.WriteByte(entryVersion)
	if err := entryEncMode.MarshalToBuffer(e, text); err != nil {
		return nil, fmt.Errorf("encode spool entry: %w", err)
	}
	return text.Bytes(), nil
}

// entryEncMode writes into the buffer of the caller: an entry may have megabytes.
var entryEncMode = func() cbor.UserBufferEncMode {
	mode, err := cbor.EncOptions{}.UserBufferEncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// entryMode accepts raw texts that are not UTF-8. The limits of requests bound the number of messages.
var entryMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: math.MaxInt32}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// decodeEntry reads what encode wrote, and rejects anything else.
func decodeEntry(b []byte) (entry, error) {
	if len(b) == 0 {
		return entry{}, errors.New("the entry is empty")
	}
	if b[0] != entryVersion {
		return entry{}, fmt.Errorf("entry version %d, %w", b[0], errVersion)
	}
	var e entry
	if err := entryMode.Unmarshal(b[1:], &e); err != nil {
		return entry{}, fmt.Errorf("decode spool entry: %w", err)
	}
	return e, nil
}
