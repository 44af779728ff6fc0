package chaos

import (
	"bytes"
	"cmp"
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

// The load: each sender has its share of the vehicles and sends a record of each every tick.
const (
	senders          = 4
	vehiclesOfSender = 25
	tick             = 500 * time.Millisecond
	responseTimeout  = 5 * time.Second
	retryDelay       = 100 * time.Millisecond
)

// behind is the age of the records. It is large enough for verify to check all of them: verify leaves out recent ones.
const behind = 20 * time.Minute

// statusRejected is the API's status of a rejected record.
const statusRejected = "rejected"

// record is a record that was sent. Its values differ from those of every other record of the vehicle.
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

// load sends records until stop. It sends a request again until the API accepts it.
type load struct {
	fleet    string
	target   atomic.Pointer[string] // host:port of the API
	client   *http.Client
	speeding atomic.Bool // vehicle 1 speeds

	stopped chan struct{}
	ended   sync.WaitGroup

	mu          sync.Mutex
	invalid     func() []invalidLine // lines to mix into the requests; nil: none
	accepted    []record             // including duplicates
	rejected    []rejection
	rejectedRaw []string // invalid lines that were rejected
	resent      int
	answered    time.Time     // of the latest response that counts
	gap         time.Duration // longest time between two of them
	unexpected  error         // first response that must not occur
}

type rejection struct {
	record
	reason string
}

// invalidLine must be rejected for the reason.
type invalidLine struct{ text, reason string }

func newLoad(fleet, api string) *load {
	l := &load{fleet: fleet, stopped: make(chan struct{}), client: &http.Client{Timeout: responseTimeout}}
	l.sendTo(api)
	return l
}

// sendTo directs the next attempts to another API.
func (l *load) sendTo(api string) { l.target.Store(&api) }

func (l *load) start(ctx context.Context) {
	l.answered = time.Now()
	for s := range senders {
		l.ended.Go(func() { l.send(ctx, s) })
	}
}

// stop waits until the last request of every sender is accepted.
func (l *load) stop(ctx context.Context) error {
	close(l.stopped)
	l.ended.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unexpected != nil {
		return l.unexpected
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
		var invalid []invalidLine
		if l.invalid != nil {
			invalid = l.invalid()
		}
		l.mu.Unlock()
		body := l.body(records, invalid)
		for !l.deliver(ctx, records, invalid, body) {
			l.mu.Lock()
			l.resent++
			l.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryDelay):
			}
		}
	}
}

// next returns the record of the vehicle at an instant. One vehicle in ten speeds for eight of every 24 seconds, each at its own time.
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

// body returns the body of a request: the records, and an invalid line after each of the first ones.
func (l *load) body(records []record, invalid []invalidLine) []byte {
	var text strings.Builder
	for i, r := range records {
		text.WriteString(r.line(l.fleet) + "\n")
		if i < len(invalid) {
			text.WriteString(invalid[i].text + "\n")
		}
	}
	return []byte(text.String())
}

// apiResponse has the status of each line of a request.
type apiResponse struct {
	Results []struct {
		Index          int
		Status, Reason string
	}
}

// deliver sends a request once and keeps the results. It returns false if the request must be sent again.
func (l *load) deliver(ctx context.Context, records []record, invalid []invalidLine, body []byte) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+*l.target.Load()+"/v1/telemetry?verbose=1", bytes.NewReader(body))
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
	var a apiResponse
	known := response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnprocessableEntity
	if known {
		if err := json.Unmarshal(text, &a); err != nil || len(a.Results) != len(records)+len(invalid) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.unexpected = cmp.Or(l.unexpected, fmt.Errorf("the API answered %d lines with %s", len(records)+len(invalid), text))
			return true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !known {
		if response.StatusCode < 500 && response.StatusCode != http.StatusRequestTimeout {
			l.unexpected = cmp.Or(l.unexpected, fmt.Errorf("the API answered %s: %s", response.Status, text))
		}
		return false
	}
	now := time.Now()
	l.gap, l.answered = max(l.gap, now.Sub(l.answered)), now
	for _, result := range a.Results {
		r, v := lineAt(result.Index, records, invalid)
		switch {
		case v != nil && (result.Status != statusRejected || result.Reason != v.reason):
			l.unexpected = fmt.Errorf("the API answered %s %s to an invalid line with reason %s: %s", result.Status, result.Reason, v.reason, v.text)
		case v != nil:
			l.rejectedRaw = append(l.rejectedRaw, v.text)
		case result.Status == statusRejected:
			l.rejected = append(l.rejected, rejection{*r, result.Reason})
		default:
			l.accepted = append(l.accepted, *r)
		}
	}
	return true
}

// lineAt returns the record or the invalid line in line i of a body.
func lineAt(i int, records []record, invalid []invalidLine) (*record, *invalidLine) {
	switch {
	case i >= 2*len(invalid):
		return &records[i-len(invalid)], nil
	case i%2 == 1:
		return nil, &invalid[i/2]
	default:
		return &records[i/2], nil
	}
}

// rejectedCount returns how many valid records were rejected so far.
func (l *load) rejectedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.rejected)
}

// flows reports whether senders get responses.
func (l *load) flows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.answered) < time.Second
}

// resetGap restarts the measurement of longestGap.
func (l *load) resetGap() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = 0
}

// longestGap returns the longest time without a response since resetGap, up to now.
func (l *load) longestGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.gap, time.Since(l.answered))
}
