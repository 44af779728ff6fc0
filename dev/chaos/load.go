package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The load: so many vehicles, shared out among the senders, each with a record every tick.
const (
	senders          = 4
	vehiclesOfSender = 25
	tick             = 500 * time.Millisecond
	answerWithin     = 5 * time.Second
	pauseAfterNone   = 100 * time.Millisecond // before a request without a good answer is sent again
)

// behind is how far the records' times lie in the past: far enough for verify to look at all of them, as it leaves out what
// happened just now.
const behind = 20 * time.Minute

// record is one that was sent. Its values tell it from any other of its vehicle.
type record struct {
	device   string
	ms       int64 // event time, Unix milliseconds
	lat, lon float64
	speed    float64
	battery  int
	temp     float64
}

// vehicle drives in a circle.
type vehicle struct {
	id     string
	index  int
	lastMs int64
	km     float64
	n      int
}

// load sends until it is stopped. What has no good answer is sent again until it has.
type load struct {
	fleet    string
	to       func() string // address of the API: another process may have another
	client   *http.Client
	bad      func() []badLine // lines to mix in; nil: none
	speeding atomic.Bool      // vehicle 1 drives too fast

	stopped chan struct{}
	ended   sync.WaitGroup

	mu       sync.Mutex
	accepted []record // answered as accepted, or as a duplicate
	refused  []refusal
	badTold  []string // raw bad lines that were answered as refused
	resent   int
	answered time.Time     // the last good answer
	gap      time.Duration // the longest time between two
	strange  error         // an answer that must not be
	pending  map[int]int64 // oldest event time that a sender has not had answered
}

type refusal struct {
	record
	reason string
}

// badLine is a line that has to be refused, with the reason.
type badLine struct{ text, reason string }

func newLoad(fleet string, to func() string) *load {
	return &load{fleet: fleet, to: to, stopped: make(chan struct{}), client: &http.Client{Timeout: answerWithin}, pending: map[int]int64{}}
}

func (l *load) start(ctx context.Context) {
	l.answered = time.Now()
	for s := range senders {
		l.ended.Go(func() { l.send(ctx, s) })
	}
}

// stop lets every sender get its last answer, however long that takes within ctx.
func (l *load) stop(ctx context.Context) error {
	close(l.stopped)
	l.ended.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.strange != nil {
		return l.strange
	}
	return ctx.Err()
}

func (l *load) send(ctx context.Context, sender int) {
	var fleet []*vehicle
	for i := range vehiclesOfSender {
		index := sender*vehiclesOfSender + i
		fleet = append(fleet, &vehicle{id: fmt.Sprintf("%s-%03d", l.fleet, index), index: index})
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-l.stopped:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var records []record
		for _, v := range fleet {
			records = append(records, v.next(time.Now().Add(-behind).UnixMilli(), l.speeding.Load()))
		}
		l.mu.Lock()
		l.pending[sender] = records[0].ms
		var bad []badLine
		if l.bad != nil {
			bad = l.bad()
		}
		l.mu.Unlock()
		body := l.body(records, bad)
		for !l.deliver(ctx, records, bad, body) {
			l.mu.Lock()
			l.resent++
			l.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(pauseAfterNone):
			}
		}
	}
}

// next is the vehicle's record of an instant. One in ten drives too fast for eight seconds of every 24, not all at once.
func (v *vehicle) next(ms int64, speeding bool) record {
	ms = max(ms, v.lastMs+1)
	speed := 40 + float64(v.index%7)
	if v.index%10 == 0 && (ms/1000+int64(v.index))%24 < 8 || v.index == 1 && speeding {
		speed = 110
	}
	if v.lastMs > 0 {
		v.km += speed * float64(ms-v.lastMs) / 3.6e6
	}
	v.lastMs = ms
	v.n++
	const radius = 2.0 // km
	angle := v.km/radius + float64(v.index)
	return record{
		device: v.id, ms: ms, speed: speed, battery: v.n % 101, temp: float64(v.n%1000) / 10,
		lat: round(31.5 + radius/111.2*math.Sin(angle)), lon: round(120.3 + radius/94.8*math.Cos(angle)),
	}
}

func round(degrees float64) float64 { return math.Round(degrees*1e6) / 1e6 }

func (r record) line(fleet string) string {
	return fmt.Sprintf(`{"device_id":%q,"fleet_id":%q,"timestamp":%d,"lat":%.6f,"lon":%.6f,"speed_kmh":%g,"battery_pct":%d,"temp_c":%.1f}`,
		r.device, fleet, r.ms, r.lat, r.lon, r.speed, r.battery, r.temp)
}

// body is the request: the records, and a bad line after each as long as there are any.
func (l *load) body(records []record, bad []badLine) []byte {
	var text strings.Builder
	for i, r := range records {
		text.WriteString(r.line(l.fleet) + "\n")
		if i < len(bad) {
			text.WriteString(bad[i].text + "\n")
		}
	}
	return []byte(text.String())
}

// answer is what the API says of each record.
type answer struct {
	Accepted, Duplicates, Refused int
	Results                       []struct {
		Index          int
		Status, Reason string
	}
}

// deliver sends a request once and notes the answer; false without a good one.
func (l *load) deliver(ctx context.Context, records []record, bad []badLine, body []byte) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.to()+"/v1/telemetry?verbose=1", bytes.NewReader(body))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := l.client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return false
	}
	var a answer
	known := response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnprocessableEntity
	if known {
		if err := json.Unmarshal(text, &a); err != nil || len(a.Results) != len(records)+len(bad) {
			l.note(fmt.Errorf("the API answered %d lines with %s", len(records)+len(bad), text))
			return true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !known {
		if response.StatusCode < 500 && response.StatusCode != http.StatusRequestTimeout && l.strange == nil {
			l.strange = fmt.Errorf("the API answered %s: %s", response.Status, text)
		}
		return false
	}
	now := time.Now()
	l.gap, l.answered = max(l.gap, now.Sub(l.answered)), now
	for _, result := range a.Results {
		r, b := l.at(result.Index, records, bad)
		switch {
		case b != nil && (result.Status != "refused" || result.Reason != b.reason):
			l.strange = fmt.Errorf("the API answered %s %s to a bad line that is %s: %s", result.Status, result.Reason, b.reason, b.text)
		case b != nil:
			l.badTold = append(l.badTold, b.text)
		case result.Status == "refused":
			l.refused = append(l.refused, refusal{*r, result.Reason})
		default:
			l.accepted = append(l.accepted, *r)
		}
	}
	return true
}

// at is what stands in line i of a body.
func (l *load) at(i int, records []record, bad []badLine) (*record, *badLine) {
	if i < 2*len(bad) {
		if i%2 == 1 {
			return nil, &bad[i/2]
		}
		return &records[i/2], nil
	}
	return &records[i-len(bad)], nil
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.strange == nil {
		l.strange = err
	}
}

// measure begins to look for the longest time without an answer anew.
func (l *load) measure() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = 0
}

// longestGap is the longest time without an answer since measure, the one that still lasts included.
func (l *load) longestGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.gap, time.Since(l.answered))
}
