package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
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

// record is a record that was sent. Its values differ from those of every other record of the vehicle.
type record struct {
	device   string
	ms       int64 // event time, Unix milliseconds
	lat, lon float64
	speed    float64
	battery  int
	temp     float64
	due      time.Time // when the vehicle measured it; its sender may be delayed
}

// vehicle drives in a circle.
type vehicle struct {
	id     string
	index  int
	lastMs int64
	km     float64
	n      int
}

// line is one line of a request.
type line struct {
	text   string
	record *record // nil: an invalid line
	reason string  // of the rejection of an invalid line
}

// load sends records until stop. It sends a request again until the API accepts it.
type load struct {
	fleet     string
	token     string
	target    atomic.Pointer[string] // host:port of the API
	client    *http.Client
	speeding  atomic.Bool // vehicle 1 speeds
	poisonous atomic.Bool // each request has invalid lines
	poisoned  atomic.Int64
	responses gap

	stopped chan struct{}
	ended   sync.WaitGroup

	mu          sync.Mutex
	accepted    []record // including duplicates
	rejected    []record
	rejectedRaw []string // invalid lines that were rejected
	resent      int
	unexpected  error // first response that must not occur
}

func newLoad(fleet, api string) *load {
	l := &load{fleet: fleet, token: tokenOf(allFleets), stopped: make(chan struct{}), client: &http.Client{Timeout: responseTimeout}}
	if fleet == honestFleet { // does not trust others
		l.token = tokenOf(fleet)
	}
	l.sendTo(api)
	return l
}

// sendTo directs the next attempts to another API.
func (l *load) sendTo(api string) { l.target.Store(&api) }

func (l *load) start(ctx context.Context) {
	l.responses.reset()
	for s := range senders {
		l.ended.Go(func() { l.send(ctx, s) })
	}
}

// stop waits until the last request of every sender is accepted.
func (l *load) stop(ctx context.Context) error {
	close(l.stopped)
	l.ended.Wait()
	return cmp.Or(l.unexpected, ctx.Err())
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
		var due time.Time
		select {
		case <-l.stopped:
			return
		case <-ctx.Done():
			return
		case due = <-ticker.C:
		}
		var lines []line
		for _, v := range fleet {
			r := v.next(time.Now().Add(-behind).UnixMilli(), l.speeding.Load())
			r.due = due
			lines = append(lines, line{text: r.line(l.fleet), record: &r})
		}
		if l.poisonous.Load() {
			for i, invalid := range invalidLines(l.fleet, l.poisoned.Add(1)) {
				lines = slices.Insert(lines, 2*i+1, invalid)
			}
		}
		for !l.deliver(ctx, lines) {
			l.mu.Lock()
			l.resent++
			l.mu.Unlock()
			if process.Sleep(ctx, retryDelay) != nil {
				return
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

// deliver sends a request once and keeps the results. It returns false if the request must be sent again.
func (l *load) deliver(ctx context.Context, lines []line) bool {
	var body strings.Builder
	for _, line := range lines {
		body.WriteString(line.text + "\n")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+*l.target.Load()+"/v1/telemetry?verbose=1", strings.NewReader(body.String()))
	if err != nil {
		return false
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	status, text, err := l.do(request)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case status == http.StatusOK || status == http.StatusUnprocessableEntity:
		l.unexpected = cmp.Or(l.unexpected, l.keep(lines, text))
		return true
	case status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		l.unexpected = cmp.Or(l.unexpected, fmt.Errorf("the API answered %d: %s", status, text))
	}
	return false
}

// get sends a read to the API.
func (l *load) get(ctx context.Context, path string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+*l.target.Load()+path, nil)
	if err != nil {
		return 0, nil, err
	}
	return l.do(request)
}

func (l *load) do(request *http.Request) (status int, body []byte, err error) {
	request.Header.Set("Authorization", "Bearer "+l.token)
	response, err := l.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// keep keeps the results of the lines of a request. The caller holds the lock.
func (l *load) keep(lines []line, response []byte) error {
	var answer struct {
		Results []struct {
			Index          int
			Status, Reason string
		}
	}
	if err := json.Unmarshal(response, &answer); err != nil || len(answer.Results) != len(lines) {
		return fmt.Errorf("the API answered %d lines with %s", len(lines), response)
	}
	l.responses.event()
	for _, result := range answer.Results {
		line, rejected := lines[result.Index], result.Status == "rejected"
		switch {
		case line.record == nil && (!rejected || result.Reason != line.reason):
			return fmt.Errorf("the API answered %s %s to an invalid line with reason %s: %s", result.Status, result.Reason, line.reason, line.text)
		case line.record == nil:
			l.rejectedRaw = append(l.rejectedRaw, line.text)
		case rejected:
			l.rejected = append(l.rejected, *line.record)
		default:
			l.accepted = append(l.accepted, *line.record)
		}
	}
	return nil
}

// rejections returns the number of rejected records, and the invalid lines that were rejected.
func (l *load) rejections() (records int, lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.rejected), slices.Clone(l.rejectedRaw)
}

// acceptedSoFar returns the records that were accepted, those of a device in order.
func (l *load) acceptedSoFar() []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.accepted)
}

// retries returns the number of requests that were sent again.
func (l *load) retries() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.resent
}

// flows reports whether senders get responses.
func (l *load) flows() bool {
	sinceLast, _ := l.responses.times()
	return sinceLast < time.Second
}

// gap measures the longest time between two events.
type gap struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
}

// reset starts the measurement now.
func (g *gap) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last, g.longest = time.Now(), 0
}

func (g *gap) event() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.last, g.longest = now, max(g.longest, now.Sub(g.last))
}

// times returns the time since the last event, and the longest time between two events since reset, up to now.
func (g *gap) times() (sinceLast, longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	sinceLast = time.Since(g.last)
	return sinceLast, max(g.longest, sinceLast)
}
