package ingest

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
)

var (
	errTooLarge = errors.New("too large")
	errNoMemory = errors.New("no memory")
)

const firstRead = 4 << 10

// body reads the body of the request, unpacked.
func (c *call) body() ([]byte, *problem) {
	if c.r.ContentLength > c.Limits.MaxBody {
		c.w.Header().Set("Connection", "close") // what is still to come is not worth reading
		return nil, c.tooLarge()
	}
	var in io.Reader = http.MaxBytesReader(c.w, c.r.Body, c.Limits.MaxBody)
	switch encoding := strings.ToLower(strings.TrimSpace(c.r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return nil, c.unread(err)
		}
		in = unpacked
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, "unsupported_encoding", "Content-Encoding %q is not read here: use gzip, or none", encoding)
	}
	text, err := c.readAll(in)
	if err != nil {
		return nil, c.unread(err)
	}
	return text, nil
}

// readAll takes memory only for what has come: a sender who announces much and sends nothing holds none.
func (c *call) readAll(in io.Reader) ([]byte, error) {
	var text []byte
	for {
		if len(text) == cap(text) {
			if int64(len(text)) > c.Limits.MaxBody {
				return nil, errTooLarge
			}
			size := min(max(2*cap(text), firstRead), int(c.Limits.MaxBody)+1)
			if !c.lease.grow(int64(size - cap(text))) {
				return nil, errNoMemory
			}
			text = append(make([]byte, 0, size), text...)
		}
		n, err := in.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if err == io.EOF {
			if int64(len(text)) > c.Limits.MaxBody {
				return nil, errTooLarge
			}
			return text, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *call) tooLarge() *problem {
	return refuse(http.StatusRequestEntityTooLarge, "too_large", "a request may have %d bytes, unpacked, and %d records: send several", c.Limits.MaxBody, c.Limits.MaxRecords)
}

func (c *call) unread(err error) *problem {
	corrupt, longer := flate.CorruptInputError(0), (*http.MaxBytesError)(nil)
	switch {
	case errors.Is(err, errTooLarge), errors.As(err, &longer):
		c.w.Header().Set("Connection", "close")
		return c.tooLarge()
	case errors.Is(err, errNoMemory):
		return unavailable("busy", "too much is being sent at once: send it again later", retryBusy)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.w.Header().Set("Connection", "close")
		return refuse(http.StatusRequestTimeout, "too_slow", "the request did not come within %s: nothing of it was taken", c.Limits.ReadTimeout)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt),
		errors.Is(err, io.ErrUnexpectedEOF) && c.r.Header.Get("Content-Encoding") != "", err == io.EOF:
		return refuse(http.StatusBadRequest, "bad_gzip", "the body is no whole gzip (%v): nothing of it was taken", err)
	default:
		return refuse(http.StatusBadRequest, "incomplete", "the body did not come whole (%v): nothing of it was taken", err)
	}
}
