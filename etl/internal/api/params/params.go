// Package params reads the parameters of a list: its range in time, its format, and the page to read.
package params

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/rest"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Query is a list as a request asks for it.
type Query struct {
	Scope string // fleet of the token, or auth.AllFleets
	ID    string // fleet or device in the path

	From, To int64 // Unix milliseconds, both included
	Sliding  bool  // the range moves with the clock

	Severities []string
	Format     Format
	Limit      int
	Whole      bool   // the request gave neither limit nor page
	Page       string // as it arrived
	Position   string // where the page starts, as the list defines it; empty: at the beginning

	spec  Spec
	given string // every parameter that selects items, as it arrived
}

// Spec is which parameters a list has.
type Spec struct {
	Route    string
	Span     *Span // nil: no range in time
	Severity bool
	Formats  []Format
	Rows     int // default of limit
	MaxRows  int // maximum of limit
}

// Span is the range of a list in time.
type Span struct {
	Default time.Duration // length of the range without from
	Max     time.Duration // 0: unlimited
}

// Format is the format of a response.
type Format string

// The formats.
const (
	JSON Format = "json"
	CSV  Format = "csv"
	GPX  Format = "gpx"
)

const csvType = "text/csv"

// ContentType is the media type of a format.
func (f Format) ContentType() string {
	return map[Format]string{JSON: rest.JSONType, CSV: csvType + "; charset=utf-8; header=present", GPX: gpx.ContentType}[f]
}

// accepted are the formats by the media types of the header Accept.
var accepted = map[string]Format{rest.JSONType: JSON, "application/*": JSON, "*/*": JSON, csvType: CSV, gpx.ContentType: GPX}

// The parameters.
const (
	paramFrom     = "from"
	paramTo       = "to"
	paramSeverity = "severity"
	paramLimit    = "limit"
	paramPage     = "page"
	paramFormat   = "format"
	paramToken    = "token" // ignored: only devices may send their token in the address
)

// Parse reads the parameters of a list. It rejects unknown names: a misspelled one would silently change the response.
func Parse(r *http.Request, id string, spec Spec, now time.Time) (*Query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, rest.Invalid("query", r.URL.RawQuery, "not valid URL encoding", "escape special characters with %")
	}
	if err := spec.checkNames(values); err != nil {
		return nil, err
	}
	q := &Query{ID: id, Page: values.Get(paramPage), Limit: spec.Rows, spec: spec}
	if q.Format, err = chooseFormat(values.Get(paramFormat), r.Header.Get("Accept"), spec.Formats); err != nil {
		return nil, err
	}
	limit := values.Get(paramLimit)
	q.Whole = limit == "" && q.Page == ""
	if limit != "" {
		q.Limit, err = strconv.Atoi(limit)
		if err != nil || q.Limit < 1 || q.Limit > spec.MaxRows {
			return nil, rest.Invalid(paramLimit, limit, "not a number of rows", fmt.Sprintf("give 1 to %d", spec.MaxRows))
		}
	}
	if spec.Severity {
		if q.Severities, err = parseSeverities(values[paramSeverity]); err != nil {
			return nil, err
		}
	}
	if spec.Span != nil {
		if err := q.setRange(values.Get(paramFrom), values.Get(paramTo), *spec.Span, now); err != nil {
			return nil, err
		}
	}
	q.given = strings.Join([]string{values.Get(paramFrom), values.Get(paramTo), strings.Join(q.Severities, ",")}, "\x00")
	return q, q.readPage()
}

func (s *Spec) checkNames(values url.Values) error {
	known := []string{paramLimit, paramPage, paramFormat}
	if s.Span != nil {
		known = append(known, paramFrom, paramTo)
	}
	if s.Severity {
		known = append(known, paramSeverity)
	}
	for name, texts := range values {
		switch {
		case name == paramToken:
		case !slices.Contains(known, name):
			return rest.Invalid(name, texts[0], "unknown parameter", "this route takes "+strings.Join(known, ", "))
		case len(texts) > 1 && name != paramSeverity:
			return rest.Invalid(name, strings.Join(texts, ", "), "more than one value", "give one")
		}
	}
	return nil
}

func parseSeverities(texts []string) ([]string, error) {
	var severities []string
	for _, text := range texts {
		for s := range strings.SplitSeq(text, ",") {
			severity := strings.ToUpper(strings.TrimSpace(s))
			if SeverityRank(severity) < 0 {
				return nil, rest.Invalid(paramSeverity, s, "unknown severity", "give "+strings.Join(cassandra.Severities, ", ")+" or several with commas")
			}
			severities = append(severities, severity)
		}
	}
	slices.SortFunc(severities, func(a, b string) int { return cmp.Compare(SeverityRank(a), SeverityRank(b)) })
	return slices.Compact(severities), nil
}

// SeverityRank orders severities, the highest first. It is negative for an unknown one.
func SeverityRank(severity string) int { return slices.Index(cassandra.Severities, severity) }

// chooseFormat takes the format that is named, else the one that Accept prefers.
func chooseFormat(name, accept string, formats []Format) (Format, error) {
	if name != "" {
		if f := Format(strings.ToLower(name)); slices.Contains(formats, f) {
			return f, nil
		}
		names := make([]string, len(formats))
		for i, f := range formats {
			names[i] = string(f)
		}
		return "", rest.Invalid(paramFormat, name, "not a format of this list", "give "+strings.Join(names, ", "))
	}
	best, weight := JSON, 0.0
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		w, badWeight := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if err != nil || badWeight != nil {
			continue
		}
		if f, known := accepted[media]; known && w > weight && slices.Contains(formats, f) {
			best, weight = f, w
		}
	}
	return best, nil
}

// setRange reads from and to. Without to the range ends now.
func (q *Query) setRange(from, to string, s Span, now time.Time) (err error) {
	q.To, q.Sliding = now.UnixMilli(), true
	if to != "" {
		if q.To, q.Sliding, err = parseInstant(paramTo, to, now); err != nil {
			return err
		}
	}
	q.From = q.To - s.Default.Milliseconds()
	if from != "" {
		var relative bool
		if q.From, relative, err = parseInstant(paramFrom, from, now); err != nil {
			return err
		}
		q.Sliding = q.Sliding || relative
	}
	switch {
	case q.From > q.To && to == "":
		return rest.Invalid(paramFrom, from, "later than now", "give an earlier time, or give to as well")
	case q.From > q.To:
		return rest.Invalid(paramTo, to, "earlier than from", "give a time after from")
	case s.Max > 0 && q.To-q.From > s.Max.Milliseconds():
		return rest.Invalid(paramFrom, cmp.Or(from, to), "the range is too long", fmt.Sprintf("ask for at most %d days at once", s.Max/(24*time.Hour)))
	}
	return nil
}

// MaxTime bounds times, in Unix milliseconds: the year 2200.
const MaxTime = 7_258_118_400_000

// parseInstant reads RFC 3339, epoch seconds or milliseconds, now, or a time relative to now such as -24h or -7d.
func parseInstant(field, s string, now time.Time) (ms int64, relative bool, err error) {
	const remedy = "give RFC 3339, epoch seconds or milliseconds, now, or a relative time such as -24h or -7d"
	switch d, ok := parseOffset(s); {
	case s == "now":
		return now.UnixMilli(), true, nil
	case ok:
		ms, relative = now.Add(d).UnixMilli(), true
	default:
		// A plus that was not escaped arrives as a space. Only the UTC offset can contain one.
		if i := len(s) - len(" 02:00"); i > len("2006-01-02T") && s[i] == ' ' {
			s = s[:i] + "+" + s[i+1:]
		}
		if ms, err = (telemetry.TimeFormat{}).Parse(s); err != nil {
			return 0, false, rest.Invalid(field, s, "not a time", remedy)
		}
	}
	if ms < 0 || ms > MaxTime {
		return 0, false, rest.Invalid(field, s, "not between 1970 and 2200", remedy)
	}
	return ms, relative, nil
}

// parseOffset reads a duration with its sign, in days (-7d) or in the format of package time (-1h30m).
func parseOffset(s string) (time.Duration, bool) {
	if s == "" || s[0] != '-' && s[0] != '+' && s[0] != ' ' {
		return 0, false
	}
	s = strings.Replace(s, " ", "+", 1)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > -100_000 && n < 100_000
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// cursor is where a list continues. It contains the range of the first page, so that a range such as the last 24 hours
// does not move while the list is read.
type cursor struct {
	Query    string `json:"q"` // hash of the list that it belongs to
	From     int64  `json:"f,omitempty"`
	To       int64  `json:"t,omitempty"`
	Position string `json:"p"`
}

func (q *Query) hash() string {
	sum := sha256.Sum256([]byte(q.spec.Route + "\x00" + q.ID + "\x00" + q.given))
	return hex.EncodeToString(sum[:6])
}

// Key identifies the response of the query, for a cache.
func (q *Query) Key() []string {
	return []string{q.Scope, q.spec.Route, q.ID, q.given, strconv.Itoa(q.Limit), q.Page, string(q.Format)}
}

// Next encodes a position as the value of the parameter page. It is empty for no position.
func (q *Query) Next(position string) string {
	if position == "" {
		return ""
	}
	return EncodeToken(cursor{q.hash(), q.From, q.To, position})
}

// EncodeToken encodes a value of texts and numbers as an opaque text for addresses.
func EncodeToken(v any) string {
	text, _ := json.Marshal(v) // texts and numbers can always be encoded
	return base64.RawURLEncoding.EncodeToString(text)
}

// DecodeToken reads what EncodeToken wrote.
func DecodeToken(token string, v any) error {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// Link is the address of the list at another page. It does not repeat a token among the parameters.
func Link(r *http.Request, page string) string {
	values, _ := url.ParseQuery(r.URL.RawQuery) // Parse read it before
	values.Del(paramToken)
	values.Set(paramPage, page)
	return r.URL.EscapedPath() + "?" + values.Encode()
}

func (q *Query) readPage() error {
	if q.Page == "" {
		return nil
	}
	var c cursor
	if DecodeToken(q.Page, &c) != nil || c.Position == "" || !c.fits(q.spec.Span) {
		return q.BadPage()
	}
	if c.Query != q.hash() {
		return rest.Invalid(paramPage, q.Page, "belongs to another list", "give the same from, to and severity as for the previous page")
	}
	q.Position = c.Position
	q.From, q.To, q.Sliding = c.From, c.To, false
	return nil
}

// fits reports whether a first page can have the range of the cursor.
func (c cursor) fits(s *Span) bool {
	if s == nil {
		return c.From == 0 && c.To == 0
	}
	return c.From >= 0 && c.From <= c.To && c.To <= MaxTime && (s.Max == 0 || c.To-c.From <= s.Max.Milliseconds())
}

// BadPage is the problem of an invented page.
func (q *Query) BadPage() *rest.Problem {
	return rest.Invalid(paramPage, q.Page, "not issued by this API", "give next of the previous page, or leave page out")
}
