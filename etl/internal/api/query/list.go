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
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// list is one of the lists of the API.
type list[T any] struct {
	params.Spec
	path    string
	idField string // what the path names: fleet or device; empty: nothing

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

// serveList answers a list.
func serveList[T any](a *API, l list[T]) rest.Route {
	l.Formats, l.Rows, l.MaxRows = []params.Format{params.JSON, params.CSV}, a.Limits.Rows, a.Limits.MaxRows
	if l.point != nil {
		l.Formats = append(l.Formats, params.GPX)
	}
	return rest.Route{Name: l.Route, Method: http.MethodGet, Path: l.path, Right: auth.Read, Handle: func(w *rest.Response, r *rest.Request) error {
		return a.problem(l.serve(a, w, r))
	}}
}

func (l *list[T]) serve(a *API, w *rest.Response, r *rest.Request) error {
	w.Header().Set("Vary", "Authorization, Accept")
	id := r.PathValue(l.idField)
	if l.idField != "" && !telemetry.ValidName(id) {
		return rest.Invalid(l.idField, id, "not a name", "use 1 to 128 characters of A-Za-z0-9._:-")
	}
	if l.idField == fieldFleet && !r.Grant.Allows(id) {
		return otherFleet(id)
	}
	q, err := params.Parse(r.Request, id, l.Spec, a.Now())
	if err != nil {
		return err
	}
	q.Scope = r.Grant.Fleet
	if q.Format != params.JSON && q.Whole {
		if l.streamed {
			return l.stream(a, w, r, q)
		}
		q.Limit = math.MaxInt // the store returns the whole list in any case
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.Limits.Timeout)
	defer cancel()
	generation := ""
	if l.generation != nil {
		generation = l.generation(ctx, q)
	}
	encoded, err := a.loader.Get(ctx, pageKey(q, generation), l.ttl(q, a.Now()), isPage, func(ctx context.Context) (encoded []byte, err error) {
		err = a.withStore(ctx, r.Grant.Sender(), func(ctx context.Context, store Store) error {
			items, position, err := l.page(ctx, store, q)
			if err != nil {
				return err
			}
			encoded, err = l.render(q, items, q.Next(position))
			return err
		})
		return encoded, err
	})
	if err != nil {
		return err
	}
	p, _ := decodePage(encoded)
	release, err := a.reserve(r, int64(len(p.Body)))
	if err != nil {
		return err
	}
	defer release()
	servePage(w, r, l.Route, q, p)
	return nil
}

// reserve reserves memory for a response until release is called: a client that reads slowly holds it.
func (a *API) reserve(r *rest.Request, bytes int64) (release func(), err error) {
	sender := r.Grant.Sender()
	return func() { a.memory.Release(sender, bytes) }, a.memory.Reserve(sender, bytes)
}

// render writes items in the requested format, and returns them as an encoded page.
func (l *list[T]) render(q *params.Query, items []T, next string) ([]byte, error) {
	var b bytes.Buffer
	var err error
	if q.Format == params.JSON {
		if items == nil {
			items = []T{}
		}
		err = json.NewEncoder(&b).Encode(struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}{items, next})
	} else {
		err = l.writer(&b, q)(items, true)
	}
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b.Bytes())
	return cbor.Marshal(page{Next: next, ETag: `"` + hex.EncodeToString(sum[:12]) + `"`, Body: b.Bytes()})
}

// writer returns a function that writes the next part of a file. done is set with the last part.
func (l *list[T]) writer(w io.Writer, q *params.Query) func(items []T, done bool) error {
	if q.Format == params.GPX {
		g := gpx.NewWriter(w, q.ID)
		return func(items []T, done bool) error {
			for _, item := range slices.Backward(items) { // newest first
				g.Add(l.point(item))
			}
			if done {
				g.End()
			}
			return g.Flush()
		}
	}
	c := csv.NewWriter(w)
	_ = c.Write(columns[T]()) // c.Error returns the error
	return func(items []T, _ bool) error {
		for _, item := range items {
			_ = c.Write(row(item))
		}
		c.Flush()
		return c.Error()
	}
}

// columns returns the columns of a file: the fields of the items in JSON.
func columns[T any]() (names []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// row returns the values of an item. An absent value is empty.
func row(item any) (values []string) {
	v := reflect.ValueOf(item)
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		field := reflect.Indirect(v.Field(i))
		switch {
		case !field.IsValid():
			values = append(values, "")
		case field.CanFloat():
			values = append(values, strconv.FormatFloat(field.Float(), 'f', -1, 64))
		default:
			values = append(values, fmt.Sprint(field.Interface()))
		}
	}
	return values
}

func servePage(w *rest.Response, r *rest.Request, route string, q *params.Query, p page) {
	h := w.Header()
	h.Set("ETag", p.ETag)
	h.Set("Cache-Control", "private, no-cache") // a client may store it, and must ask each time whether it is current
	if p.Next != "" {
		h.Set("Link", "<"+params.Link(r.Request, p.Next)+`>; rel="next"`)
	}
	if matches(r.Header.Get("If-None-Match"), p.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	setContentHeaders(h, route, q)
	h.Set("Content-Length", strconv.Itoa(len(p.Body)))
	w.ExtendDeadline(slowReader)
	_, _ = w.Write(p.Body) // the client may be gone
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

// pages reads a list page by page.
func (l *list[T]) pages(q *params.Query) reader[T] {
	q.Limit = streamRows
	return func(ctx context.Context, store Store) (items []T, done bool, err error) {
		items, q.Position, err = l.page(ctx, store, q)
		return items, q.Position == "", err
	}
}

// stream answers a whole list part by part, with one part in memory. Each part has the time limit of a request. The first
// part is read before anything is sent, so that an unavailable store gives a status of its own.
func (l *list[T]) stream(a *API, w *rest.Response, r *rest.Request, q *params.Query) error {
	release, err := a.reserve(r, streamMemory)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(r.Context(), a.Limits.StreamTimeout)
	defer cancel()
	parts, write := l.pages, l.writer(w, q)
	if q.Format == params.GPX {
		parts = l.all
	}
	read := parts(q)
	for first, done := true, false; !done; first = false {
		var items []T
		err := a.withStore(ctx, r.Grant.Sender(), func(ctx context.Context, store Store) (err error) {
			items, done, err = read(ctx, store)
			return err
		})
		if err != nil {
			return err
		}
		if first {
			setContentHeaders(w.Header(), l.Route, q)
			w.Header().Set("Cache-Control", "private, no-store")
			if r.Method == http.MethodHead {
				return nil
			}
		}
		w.ExtendDeadline(slowReader)
		err = write(items, done)
		if err == nil && !done {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("write response: %w", err)
		}
	}
	return nil
}

// keyVersion is part of every key. Change it with the format of the values, because processes of two versions may share a
// cache.
const keyVersion = "2"

func hashKey(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "fleet-etl:read:" + keyVersion + ":" + kind + ":" + hex.EncodeToString(sum[:])
}

func generationKey(fleet string) string { return hashKey("generation", fleet) }

// pageKey names a page. It contains the fleet of the token, so that no token receives data of another fleet.
func pageKey(q *params.Query, generation string) string {
	return hashKey("page", append(q.Key(), generation)...)
}

// page is a part of a list as the client receives it. It is cached as CBOR.
type page struct {
	Next string
	ETag string
	Body []byte
}

// decodePage reads an encoded page. It returns false for anything else that a shared cache may contain.
func decodePage(b []byte) (p page, ok bool) {
	err := cbor.Unmarshal(b, &p)
	return p, err == nil && p.ETag != ""
}

func isPage(b []byte) bool {
	_, ok := decodePage(b)
	return ok
}
