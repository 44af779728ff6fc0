package ingest

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

// body reads and decompresses the body of the request.
func (q *request) body() ([]byte, error) {
	if q.ContentLength > q.Limits.MaxBody {
		q.w.Header().Set("Connection", "close") // the rest is not worth reading
		return nil, q.tooLarge()
	}
	var in io.Reader = http.MaxBytesReader(q.w, q.Body, q.Limits.MaxBody)
	switch encoding := strings.ToLower(strings.TrimSpace(q.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		if err := q.reserve(gzipMemory); err != nil {
			return nil, err
		}
		decompressed, err := gzip.NewReader(in)
		if err != nil {
			return nil, q.unreadable(err)
		}
		in = http.MaxBytesReader(q.w, decompressed, q.Limits.MaxBody)
	default:
		return nil, &rest.Problem{
			Kind: rest.UnsupportedEncoding, Detail: "the content encoding is not supported", Field: "Content-Encoding", Value: encoding,
			Remedy: "use gzip, or none",
		}
	}
	text, err := io.ReadAll(reservingReader{q, in})
	if err != nil {
		return nil, q.unreadable(err)
	}
	q.size = len(text)
	return text, nil
}

// The memory of a request, in bytes.
const (
	bodyMemory    = 3        // per byte of the body: it, its records, and their entry in the spool
	messageMemory = 512      // per record
	gzipMemory    = 48 << 10 // to decompress
)

// reserve reserves memory until the request ends.
func (q *request) reserve(bytes int64) error {
	if err := q.memory.Reserve(q.Grant.Sender(), bytes); err != nil {
		return err
	}
	q.reserved += bytes
	return nil
}

// reservingReader reserves memory for what has arrived: a sender that announces much and sends nothing holds none.
type reservingReader struct {
	q  *request
	in io.Reader
}

// Read implements io.Reader.
func (r reservingReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	if noMemory := r.q.reserve(bodyMemory * int64(n)); noMemory != nil {
		return n, noMemory
	}
	return n, err
}

func (q *request) tooLarge() *rest.Problem {
	return &rest.Problem{
		Kind:   rest.TooLarge,
		Detail: fmt.Sprintf("a request may have %d bytes after decompression, and %d records", q.Limits.MaxBody, q.Limits.MaxRecords),
		Remedy: "split it into several requests",
	}
}

func (q *request) unreadable(err error) error {
	const nothing = "send the request again; nothing of it was stored"
	corrupt, longer, problem := flate.CorruptInputError(0), (*http.MaxBytesError)(nil), (*rest.Problem)(nil)
	switch {
	case errors.As(err, &problem):
		q.w.Header().Set("Connection", "close")
		return problem
	case errors.As(err, &longer):
		q.w.Header().Set("Connection", "close")
		return q.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		q.w.Header().Set("Connection", "close")
		return &rest.Problem{Kind: rest.RequestTimeout, Detail: "the request did not arrive in time", Remedy: nothing}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt),
		errors.Is(err, io.ErrUnexpectedEOF) && q.Header.Get("Content-Encoding") != "", err == io.EOF:
		return &rest.Problem{Kind: rest.BadGzip, Detail: fmt.Sprintf("the body is not complete gzip: %v", err), Remedy: nothing}
	default:
		return &rest.Problem{Kind: rest.IncompleteBody, Detail: fmt.Sprintf("the body is incomplete: %v", err), Remedy: nothing}
	}
}
