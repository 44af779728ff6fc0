package query

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
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// query is a list as it was asked for.
type query struct {
	scope string // fleet of the token, or AllFleets
	id    string // fleet or device of the path

	from, to int64 // Unix milliseconds, both included
	sliding  bool  // the range moves with the clock

	severities []string
	form       form
	limit      int
	whole      bool   // neither limit nor page was given
	page       string // as it came
	position   string // where the page starts, in the list's own terms; empty: at the beginning

	given string // every parameter that decides what is on the list, as it came
}

// form is how an answer is written.
type form string

// The forms.
const (
	formJSON form = "json"
	formCSV  form = "csv"
	formGPX  form = "gpx"
)

const (
	jsonType = "application/json"
	csvType  = "text/csv"
	gpxType  = "application/gpx+xml"
)

func (f form) contentType() string {
	switch f {
	case formCSV:
		return csvType + "; charset=utf-8; header=present"
	case formGPX:
		return gpxType
	default:
		return jsonType
	}
}

// The parameters.
const (
	paramFrom     = "from"
	paramTo       = "to"
	paramSeverity = "severity"
	paramLimit    = "limit"
	paramPage     = "page"
	paramFormat   = "format"
	paramToken    = "token" // not ours: devices that can't send headers may name their token so
)

// span is the range of a list in time.
type span struct {
	back    time.Duration // from, where it is not given: so long before to
	longest time.Duration // 0: any
}

// parseQuery reads the parameters of a list. Names that it does not have are refused: a misspelt one would quietly
// give another answer.
func (a *API) parseQuery(r *http.Request, route string, s *span, severity bool, forms []form) (*query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("query", r.URL.RawQuery, "not readable", "escape special characters with %")
	}
	known := []string{paramLimit, paramPage, paramFormat}
	if s != nil {
		known = append(known, paramFrom, paramTo)
	}
	if severity {
		known = append(known, paramSeverity)
	}
	for name, texts := range values {
		switch {
		case name == paramToken:
		case !slices.Contains(known, name):
			return nil, badRequest(name, texts[0], "no such parameter", "this route takes "+strings.Join(known, ", "))
		case len(texts) > 1 && name != paramSeverity:
			return nil, badRequest(name, strings.Join(texts, ", "), "given more than once", "give one")
		}
	}
	q := &query{page: values.Get(paramPage), limit: a.Limits.Rows}
	if q.form, err = chooseForm(values.Get(paramFormat), r.Header.Get("Accept"), forms); err != nil {
		return nil, err
	}
	limit := values.Get(paramLimit)
	q.whole = limit == "" && q.page == ""
	if limit != "" {
		q.limit, err = strconv.Atoi(limit)
		if err != nil || q.limit < 1 || q.limit > a.Limits.MaxRows {
			return nil, badRequest(paramLimit, limit, "not a number of rows", fmt.Sprintf("give 1 to %d", a.Limits.MaxRows))
		}
	}
	if severity {
		if q.severities, err = parseSeverities(values[paramSeverity]); err != nil {
			return nil, err
		}
	}
	if s != nil {
		if err := q.setRange(values.Get(paramFrom), values.Get(paramTo), *s, a.Now()); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{paramFrom, paramTo} {
		q.given += values.Get(name) + "\x00"
	}
	q.given += strings.Join(q.severities, ",")
	return q, q.readPage(route, idOf(r), s)
}

func parseSeverities(texts []string) ([]string, error) {
	var severities []string
	for _, text := range texts {
		for s := range strings.SplitSeq(text, ",") {
			severity := strings.ToUpper(strings.TrimSpace(s))
			if !slices.Contains(cassandra.Severities, severity) {
				return nil, badRequest(paramSeverity, s, "no such severity", "give "+strings.Join(cassandra.Severities, ", ")+" or several with commas")
			}
			severities = append(severities, severity)
		}
	}
	slices.SortFunc(severities, func(a, b string) int { return cmp.Compare(gravity(a), gravity(b)) })
	return slices.Compact(severities), nil
}

// gravity ranks severities, the gravest first.
func gravity(severity string) int { return slices.Index(cassandra.Severities, severity) }

// chooseForm takes the format that is asked for by name, else what Accept prefers of those that the list has.
func chooseForm(name, accept string, forms []form) (form, error) {
	if name != "" {
		if f := form(strings.ToLower(name)); slices.Contains(forms, f) {
			return f, nil
		}
		names := make([]string, len(forms))
		for i, f := range forms {
			names[i] = string(f)
		}
		return "", badRequest(paramFormat, name, "not a form of this list", "give "+strings.Join(names, ", "))
	}
	best, weight := formJSON, 0.0
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		w := 1.0
		if q, ok := params["q"]; ok {
			if w, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		f := formJSON
		switch media {
		case csvType:
			f = formCSV
		case gpxType:
			f = formGPX
		case jsonType, "application/*", "*/*":
		default:
			continue
		}
		if w > weight && slices.Contains(forms, f) {
			best, weight = f, w
		}
	}
	return best, nil
}

// setRange reads from and to; to is now where it is not given.
func (q *query) setRange(from, to string, s span, now time.Time) (err error) {
	q.to, q.sliding = now.UnixMilli(), true
	if to != "" {
		if q.to, q.sliding, err = parseInstant(paramTo, to, now); err != nil {
			return err
		}
	}
	q.from = q.to - s.back.Milliseconds()
	if from != "" {
		var relative bool
		if q.from, relative, err = parseInstant(paramFrom, from, now); err != nil {
			return err
		}
		q.sliding = q.sliding || relative
	}
	switch {
	case q.from > q.to && to == "":
		return badRequest(paramFrom, from, "lies after now", "give a time before, or to as well")
	case q.from > q.to:
		return badRequest(paramTo, to, "lies before from", "give a time after from")
	case s.longest > 0 && q.to-q.from > s.longest.Milliseconds():
		return badRequest(paramFrom, cmp.Or(from, to), "too long a range", fmt.Sprintf("ask for at most %d days at once", s.longest/(24*time.Hour)))
	}
	return nil
}

// latestInstant is where times stop making sense: the year 2200.
const latestInstant = 7_258_118_400_000

// parseInstant reads RFC 3339, epoch seconds or milliseconds, now, or a time before or after now such as -24h or -7d.
func parseInstant(field, s string, now time.Time) (ms int64, relative bool, err error) {
	const remedy = "give RFC 3339, epoch seconds or milliseconds, now, or a time back such as -24h or -7d"
	switch d, ok := parseBack(s); {
	case s == "now":
		return now.UnixMilli(), true, nil
	case ok:
		ms, relative = now.Add(d).UnixMilli(), true
	default:
		// A plus that was not escaped arrives as a space; only the zone can have had one.
		if i := len(s) - len(" 02:00"); i > len("2006-01-02T") && s[i] == ' ' {
			s = s[:i] + "+" + s[i+1:]
		}
		if ms, err = (telemetry.TimeFormat{}).Parse(s); err != nil {
			return 0, false, badRequest(field, s, "not a time", remedy)
		}
	}
	if ms < 0 || ms > latestInstant {
		return 0, false, badRequest(field, s, "outside 1970 to 2200", remedy)
	}
	return ms, relative, nil
}

// parseBack reads a duration with its sign, of days (-7d) or of package time (-1h30m).
func parseBack(s string) (time.Duration, bool) {
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

// cursor is where a list goes on. It holds the range of the first page, so that a range of the last 24 hours stands
// still while it is read.
type cursor struct {
	Query    string `json:"q"` // of which list it is
	From     int64  `json:"f,omitempty"`
	To       int64  `json:"t,omitempty"`
	Position string `json:"p"`
}

func (q *query) hash(route, id string) string {
	sum := sha256.Sum256([]byte(route + "\x00" + id + "\x00" + q.given))
	return hex.EncodeToString(sum[:6])
}

// next is what asks for the page that starts at a position; empty for none.
func (q *query) next(route string, position string) string {
	if position == "" {
		return ""
	}
	text, _ := json.Marshal(cursor{q.hash(route, q.id), q.from, q.to, position}) // texts and numbers always can
	return base64.RawURLEncoding.EncodeToString(text)
}

func (q *query) readPage(route, id string, s *span) error {
	q.id = id
	if q.page == "" {
		return nil
	}
	var c cursor
	text, err := base64.RawURLEncoding.DecodeString(q.page)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil || c.Position == "" || !c.fits(s) {
		return badPage(q.page)
	}
	if c.Query != q.hash(route, id) {
		return badRequest(paramPage, q.page, "belongs to another list", "give from, to and severity as they were for the page before")
	}
	q.position = c.Position
	q.from, q.to, q.sliding = c.From, c.To, false
	return nil
}

// fits tells whether the range of a cursor is one that a first page could have.
func (c cursor) fits(s *span) bool {
	if s == nil {
		return c.From == 0 && c.To == 0
	}
	return c.From >= 0 && c.From <= c.To && c.To <= latestInstant && (s.longest == 0 || c.To-c.From <= s.longest.Milliseconds())
}

func badPage(page string) *problem {
	return badRequest(paramPage, page, "not one that was given", "give next of the page before, or none for the first page")
}

// idOf is the fleet or device of the path.
func idOf(r *http.Request) string { return cmp.Or(r.PathValue("fleet"), r.PathValue("device")) }

// checkID refuses a name that nothing can have.
func checkID(field, id string) error {
	if !telemetry.ValidName(id) {
		return badRequest(field, id, "not a name", "use 1 to 128 characters of A-Za-z0-9._:-")
	}
	return nil
}
