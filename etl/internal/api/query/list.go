package query

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
)

// list is one of the lists of the API.
type list[T any] struct {
	route    string
	idField  string       // what the path names: fleet or device; empty: nothing
	span     *params.Span // nil: no range in time
	severity bool         // has the parameter severity
	columns  []string
	row      func(T) []string

	// page reads at most q.Limit items from q.Position on, and returns the position after them; empty at the end.
	page func(ctx context.Context, store Store, q *params.Query) (items []T, position string, err error)

	// ttl is how long a page may stay in the cache.
	ttl func(q *params.Query, now time.Time) time.Duration

	// generation names the state of what people change, so that a page cached before a change is not shown after it.
	generation func(ctx context.Context, q *params.Query) string

	// streamed lists are sent part by part when a request asks for all of them as a file. Others are read at once.
	streamed bool

	// point is set for the list that can be a GPX file. all reads the whole list, the oldest part first and each part newest
	// first.
	point func(T) gpx.Point
	all   func(q *params.Query) reader[T]
}

// reader reads a list part by part, the last part with done.
type reader[T any] func(ctx context.Context, store Store) (items []T, done bool, err error)

// streamRows is how many rows of a stream are in memory.
const streamRows = 5000

func (l *list[T]) spec(limits Limits) params.Spec {
	formats := []params.Format{params.JSON, params.CSV}
	if l.point != nil {
		formats = append(formats, params.GPX)
	}
	return params.Spec{Route: l.route, Span: l.span, Severity: l.severity, Formats: formats, Rows: limits.Rows, MaxRows: limits.MaxRows}
}

// serveList answers a list.
func serveList[T any](a *API, l list[T]) rest.Handler {
	return func(w *rest.Response, r *rest.Request) error {
		w.Header().Set("Vary", "Authorization, Accept")
		id := pathID(r)
		if l.idField != "" {
			if err := checkID(l.idField, id); err != nil {
				return err
			}
		}
		if l.idField == fieldFleet && !r.Grant.Allows(id) {
			return otherFleet(id)
		}
		q, err := params.Parse(r.Request, id, l.spec(a.Limits), a.Now())
		if err != nil {
			return err
		}
		q.Scope = r.Grant.Fleet
		if q.Format != params.JSON && q.Whole {
			if l.streamed {
				return a.stream(w, r, l.route, q, streamOf(&l, q))
			}
			q.Limit = math.MaxInt // the store returns the whole list in any case
		}
		ctx, cancel := context.WithTimeout(r.Context(), a.Limits.Timeout)
		defer cancel()
		generation := ""
		if l.generation != nil {
			generation = l.generation(ctx, q)
		}
		encoded, err := a.loader.Get(ctx, pageKey(q, generation), l.ttl(q, a.Now()), isPage, func(ctx context.Context) ([]byte, error) {
			store, leave, err := a.reach(ctx)
			if err != nil {
				return nil, err
			}
			defer leave()
			items, position, err := l.page(ctx, store, q)
			if err != nil {
				return nil, err
			}
			p, err := l.render(q, items, q.Next(position))
			return p.encode(), err
		})
		if err != nil {
			return err
		}
		p, _ := decodePage(encoded)
		servePage(w, r, l.route, q, p)
		return nil
	}
}

// render writes items in the requested format.
func (l *list[T]) render(q *params.Query, items []T, next string) (page, error) {
	var b bytes.Buffer
	var err error
	switch q.Format {
	case params.CSV:
		c := csv.NewWriter(&b)
		err = c.Write(l.columns)
		for _, item := range items {
			err = errors.Join(err, c.Write(l.row(item)))
		}
		c.Flush()
	case params.GPX:
		g := gpx.NewWriter(&b, q.ID)
		l.addPoints(g, items)
		g.End()
		err = g.Flush()
	default:
		if items == nil {
			items = []T{}
		}
		err = json.NewEncoder(&b).Encode(struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}{items, next})
	}
	sum := sha256.Sum256(b.Bytes())
	return page{next: next, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, body: b.Bytes()}, err
}

// addPoints adds items, which are newest first, in the order of time.
func (l *list[T]) addPoints(g *gpx.Writer, items []T) {
	for i := len(items) - 1; i >= 0; i-- {
		g.Add(l.point(items[i]))
	}
}

func servePage(w *rest.Response, r *rest.Request, route string, q *params.Query, p page) {
	h := w.Header()
	h.Set("ETag", p.etag)
	h.Set("Cache-Control", "private, no-cache") // a client may store it, and must ask each time whether it is current
	if p.next != "" {
		h.Set("Link", "<"+params.Link(r.Request, p.next)+`>; rel="next"`)
	}
	if matches(r.Header.Get("If-None-Match"), p.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	setContentHeaders(h, route, q)
	h.Set("Content-Length", strconv.Itoa(len(p.body)))
	w.ExtendDeadline(slowReader)
	_, _ = w.Write(p.body) // the client may be gone
}

// setContentHeaders describes the body.
func setContentHeaders(h http.Header, route string, q *params.Query) {
	h.Set("Content-Type", q.Format.ContentType())
	h.Set("X-Content-Type-Options", "nosniff")
	if q.Format != params.JSON {
		name := route
		if q.ID != "" {
			name += "-" + strings.ReplaceAll(q.ID, ":", "_") // some file systems reject colons
		}
		h.Set("Content-Disposition", fmt.Sprintf(`inline; filename="%s.%s"`, name, q.Format))
	}
}

// matches reports whether If-None-Match names the tag.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag || tag == "*" {
			return true
		}
	}
	return false
}

// part returns a function that writes the next part of a stream. done is set with the last part.
type part func(ctx context.Context, store Store) (write func(io.Writer) error, done bool, err error)

// streamOf is a list as a stream of parts in the requested format.
func streamOf[T any](l *list[T], q *params.Query) part {
	if q.Format == params.GPX {
		return gpxParts(l, q)
	}
	q.Limit = streamRows
	begun := false
	return func(ctx context.Context, store Store) (func(io.Writer) error, bool, error) {
		items, position, err := l.page(ctx, store, q)
		if err != nil {
			return nil, false, err
		}
		q.Position = position
		header := !begun
		begun = true
		return func(w io.Writer) error {
			c := csv.NewWriter(w)
			if header {
				_ = c.Write(l.columns) // c.Error returns the error
			}
			for _, item := range items {
				_ = c.Write(l.row(item))
			}
			c.Flush()
			return c.Error()
		}, position == "", nil
	}
}

func gpxParts[T any](l *list[T], q *params.Query) part {
	read := l.all(q)
	var g *gpx.Writer
	return func(ctx context.Context, store Store) (func(io.Writer) error, bool, error) {
		items, done, err := read(ctx, store)
		return func(w io.Writer) error {
			if g == nil {
				g = gpx.NewWriter(w, q.ID)
			}
			l.addPoints(g, items)
			if done {
				g.End()
			}
			return g.Flush()
		}, done, err
	}
}

// stream answers a whole list part by part, with one part in memory. Each part has the time limit of a request. The first
// part is read before anything is sent, so that an unavailable store gives a status of its own.
func (a *API) stream(w *rest.Response, r *rest.Request, route string, q *params.Query, next part) error {
	ctx, cancel := context.WithTimeout(r.Context(), a.Limits.StreamTimeout)
	defer cancel()
	h := w.Header()
	for first := true; ; first = false {
		write, done, err := a.readPart(ctx, next)
		if err != nil {
			return err
		}
		if first {
			setContentHeaders(h, route, q)
			h.Set("Cache-Control", "private, no-store")
			if r.Method == http.MethodHead {
				return nil
			}
		}
		w.ExtendDeadline(slowReader)
		if err := write(w); err != nil {
			return fmt.Errorf("write response: %w", err)
		}
		if done {
			return nil
		}
		if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("write response: %w", err)
		}
	}
}

func (a *API) readPart(ctx context.Context, next part) (func(io.Writer) error, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, a.Limits.Timeout)
	defer cancel()
	store, leave, err := a.reach(ctx)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	return next(ctx, store)
}
