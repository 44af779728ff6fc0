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
	"net/url"
	"strconv"
	"strings"
	"time"
)

// list is one of the lists that the API has.
type list[T any] struct {
	route    string
	idField  string // what the path names: fleet or device; empty: nothing
	span     *span  // nil: without a range in time
	severity bool   // takes severities
	columns  []string
	row      func(T) []string

	// page reads at most q.limit items from q.position on, and gives the position after them; empty at the end.
	page func(ctx context.Context, store Store, q *query) (items []T, position string, err error)

	// keep is how long a page may be kept in the cache.
	keep func(q *query, now time.Time) time.Duration

	// generation names the state of something that changes by hand, so that what was cached before is not shown after.
	generation func(ctx context.Context, q *query) string

	// streamed lists are written part by part where all of them is asked for as a file; others are read at once.
	streamed bool

	// gpx is set for the list that can be a GPX file: it writes items, newest first, as points in the order of time. all
	// reads the whole list, the oldest part first and each part newest first.
	gpx func(g *gpxWriter, items []T)
	all func(q *query) reader[T]
}

// reader reads a list part by part, the last part with done.
type reader[T any] func(ctx context.Context, store Store) (items []T, done bool, err error)

// streamRows is how many rows of a streamed answer are in memory.
const streamRows = 5000

func (l *list[T]) forms() []form {
	if l.gpx != nil {
		return []form{formJSON, formCSV, formGPX}
	}
	return []form{formJSON, formCSV}
}

// serveList answers a list.
func serveList[T any](a *API, l list[T]) http.HandlerFunc {
	return a.watch(l.route, func(w *answer, r *http.Request) error {
		w.Header().Set("Vary", "Authorization, Accept")
		g, err := a.mayRead(r)
		if err != nil {
			return err
		}
		if l.idField != "" {
			if err := checkID(l.idField, idOf(r)); err != nil {
				return err
			}
		}
		if l.idField == fieldFleet && !g.covers(idOf(r)) {
			return otherFleet(idOf(r))
		}
		q, err := a.parseQuery(r, l.route, l.span, l.severity, l.forms())
		if err != nil {
			return err
		}
		q.scope = g.fleet
		if q.form != formJSON && q.whole {
			if l.streamed {
				return a.stream(w, r, l.route, q, streamOf(&l, q))
			}
			q.limit = math.MaxInt // it is read as a whole in any case
		}
		return a.servePage(w, r, l.route, q, func(ctx context.Context) (string, time.Duration) {
			generation := ""
			if l.generation != nil {
				generation = l.generation(ctx, q)
			}
			return q.cacheKey(l.route, generation), l.keep(q, a.Now())
		}, func(ctx context.Context, store Store) (page, error) {
			items, position, err := l.page(ctx, store, q)
			if err != nil {
				return page{}, err
			}
			return l.render(q, items, q.next(l.route, position))
		})
	})
}

// page is a part of a list as it is sent.
type page struct {
	next string
	etag string
	body []byte
}

// render writes items in the form that was asked for.
func (l *list[T]) render(q *query, items []T, next string) (page, error) {
	var b bytes.Buffer
	var err error
	switch q.form {
	case formCSV:
		c := csv.NewWriter(&b)
		err = c.Write(l.columns)
		for _, item := range items {
			err = errors.Join(err, c.Write(l.row(item)))
		}
		c.Flush()
	case formGPX:
		g := newGPX(&b, q.id)
		l.gpx(g, items)
		g.end()
		err = g.flush()
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

// servePage answers a page: from the cache, from an equal request's read, or from one of its own.
func (a *API) servePage(w *answer, r *http.Request, route string, q *query,
	keyOf func(context.Context) (string, time.Duration), load func(context.Context, Store) (page, error),
) error {
	ctx, cancel := context.WithTimeout(r.Context(), a.Limits.Timeout)
	defer cancel()
	key, keep := keyOf(ctx)
	p, err := a.joined(ctx, key, keep, load)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("ETag", p.etag)
	h.Set("Cache-Control", "private, no-cache") // a client may keep it, and asks each time whether it still holds
	if p.next != "" {
		h.Set("Link", "<"+q.link(r, p.next)+`>; rel="next"`)
	}
	if matches(r.Header.Get("If-None-Match"), p.etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	q.describe(h, route)
	h.Set("Content-Length", strconv.Itoa(len(p.body)))
	w.expectReader()
	_, _ = w.Write(p.body) // a client that is gone can't be told
	return nil
}

// describe says what the body is.
func (q *query) describe(h http.Header, route string) {
	h.Set("Content-Type", q.form.contentType())
	h.Set("X-Content-Type-Options", "nosniff")
	if q.form != formJSON {
		name := route
		if q.id != "" {
			name += "-" + strings.ReplaceAll(q.id, ":", "_") // which some file systems don't take
		}
		h.Set("Content-Disposition", fmt.Sprintf(`inline; filename="%s.%s"`, name, q.form))
	}
}

// link is the address of another page of the list. A token among the parameters stays out of it.
func (q *query) link(r *http.Request, page string) string {
	values, _ := url.ParseQuery(r.URL.RawQuery) // it was read before
	values.Del(paramToken)
	values.Set(paramPage, page)
	return r.URL.EscapedPath() + "?" + values.Encode()
}

// matches tells whether If-None-Match names the tag.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag || tag == "*" {
			return true
		}
	}
	return false
}

// part writes one part of a streamed answer; it is called for the last one, too, with done.
type part func(ctx context.Context, store Store) (write func(io.Writer) error, done bool, err error)

// streamOf is a list as a stream of parts in the form that was asked for.
func streamOf[T any](l *list[T], q *query) part {
	if q.form == formGPX {
		return gpxParts(l, q)
	}
	q.limit = streamRows
	begun := false
	return func(ctx context.Context, store Store) (func(io.Writer) error, bool, error) {
		items, position, err := l.page(ctx, store, q)
		if err != nil {
			return nil, false, err
		}
		q.position = position
		header := !begun
		begun = true
		return func(w io.Writer) error {
			c := csv.NewWriter(w)
			if header {
				_ = c.Write(l.columns) // its error comes with Flush
			}
			for _, item := range items {
				_ = c.Write(l.row(item))
			}
			c.Flush()
			return c.Error()
		}, position == "", nil
	}
}

func gpxParts[T any](l *list[T], q *query) part {
	read := l.all(q)
	var g *gpxWriter
	return func(ctx context.Context, store Store) (func(io.Writer) error, bool, error) {
		items, done, err := read(ctx, store)
		return func(w io.Writer) error {
			if g == nil {
				g = newGPX(w, q.id)
			}
			l.gpx(g, items)
			if done {
				g.end()
			}
			return g.flush()
		}, done, err
	}
}

// stream answers a whole list part by part, with one part in memory. Each part has the time of a request; the first is
// read before anything is sent, so that a store that is away is told as such.
func (a *API) stream(w *answer, r *http.Request, route string, q *query, next part) error {
	ctx, cancel := context.WithTimeout(r.Context(), a.Limits.StreamTimeout)
	defer cancel()
	h := w.Header()
	for first := true; ; first = false {
		write, done, err := a.readPart(ctx, next)
		if err != nil {
			return err
		}
		if first {
			q.describe(h, route)
			h.Set("Cache-Control", "private, no-store")
			if r.Method == http.MethodHead {
				return nil
			}
		}
		w.expectReader()
		if err := write(w); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
		if done {
			return nil
		}
		if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("write answer: %w", err)
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
