package chaos

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// intruder is a fleet that means harm. It has one token, which may write and read, and sends from an address of its own.
type intruder struct {
	api, token string
	from       *net.TCPAddr
	client     *http.Client
	made       atomic.Int64 // devices
	accepted   atomic.Int64 // records

	mu       sync.Mutex
	statuses map[int]int // of responses; 0: none
	leaked   string      // first response that has data of the honest fleet
}

func newIntruder(api string) *intruder {
	i := &intruder{api: api, token: tokenOf(hostileFleet), from: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}, statuses: map[int]int{}}
	dialer := &net.Dialer{LocalAddr: i.from}
	i.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 100, DisableCompression: true}}
	return i
}

func (i *intruder) String() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var counts []string
	for _, status := range slices.Sorted(maps.Keys(i.statuses)) {
		counts = append(counts, fmt.Sprintf("%d × %d", i.statuses[status], status))
	}
	return fmt.Sprintf("the hostile fleet made up %d devices, %d of its records were accepted, and its requests got %s (0: no response)", i.made.Load(), i.accepted.Load(),
		strings.Join(counts, ", "))
}

// attack does everything at once, until the returned function is called.
func (i *intruder) attack(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	repeat := func(parallel int, pause time.Duration, do func(ctx context.Context, n int)) {
		for worker := range parallel {
			running.Go(func() {
				for n := worker; process.Sleep(ctx, pause) == nil; n += parallel {
					do(ctx, n)
				}
			})
		}
	}
	bomb := gzipBomb()
	repeat(1, 500*time.Millisecond, func(ctx context.Context, _ int) { i.post(ctx, i.rivals(), "") })
	repeat(4, 50*time.Millisecond, func(ctx context.Context, _ int) { i.post(ctx, bomb, "gzip") })
	repeat(2, 500*time.Millisecond, func(ctx context.Context, n int) { i.post(ctx, i.flood(n), "") })
	repeat(64, 10*time.Millisecond, i.read)
	repeat(200, time.Second, i.hold)
	return func() { cancel(); running.Wait(); i.client.CloseIdleConnections() }
}

// rivals are records of the honest fleet's devices: at its instants, and ahead of them, under either fleet's name.
func (i *intruder) rivals() []byte {
	var b bytes.Buffer
	for n := range senders * vehiclesOfSender {
		for _, at := range []time.Time{time.Now().Add(-behind), time.Now().Add(290 * time.Second)} {
			fmt.Fprintf(&b, `{"device_id":"%s-%03d","timestamp":%d,"lat":1,"lon":1,"battery_pct":1}`+"\n", honestFleet, n, at.UnixMilli())
			fmt.Fprintf(&b, `{"device_id":"%s-%03d","fleet_id":%q,"timestamp":%d,"lat":1,"lon":1}`+"\n", honestFleet, n, honestFleet, at.UnixMilli())
		}
	}
	return b.Bytes()
}

// gzipBomb is 8 MB of rejected lines in 8 KB.
func gzipBomb() []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
	_, _ = w.Write(bytes.Repeat(append(bytes.Repeat([]byte{1}, 65_000), '\n'), 129))
	_ = w.Close() // a buffer takes everything
	return b.Bytes()
}

// flood is 10,000 records of new devices. They stand still, so they drive no distance. Those of one request in three are single
// records, of the next have a second record that is 29 or 13 days old, and of the next open and close an alert.
func (i *intruder) flood(n int) []byte {
	var b bytes.Buffer
	now := time.Now()
	for records := 0; records < 10_000; {
		device := i.made.Add(1)
		record := func(age time.Duration, speed int) {
			fmt.Fprintf(&b, `{"device_id":"intruder-%07d","timestamp":%d,"lat":1,"lon":1,"speed_kmh":%d}`+"\n", device, now.Add(-age).UnixMilli(), speed)
			records++
		}
		switch n % 3 {
		case 1:
			record(time.Duration(13+device%2*16)*24*time.Hour, 0)
		case 2:
			record(20*time.Second, 110)
			record(10*time.Second, 110)
		}
		record(0, 0)
	}
	return b.Bytes()
}

func (i *intruder) post(ctx context.Context, body []byte, encoding string) {
	var response bytes.Buffer
	var result struct{ Accepted int64 }
	i.request(ctx, http.MethodPost, "/v1/telemetry", body, encoding, &response)
	if json.Unmarshal(response.Bytes(), &result) == nil {
		i.accepted.Add(result.Accepted)
	}
}

// read reads everything of its own, and what it may not read.
func (i *intruder) read(ctx context.Context, n int) {
	own, other := "/v1/fleets/"+hostileFleet, "/v1/fleets/"+honestFleet
	paths := []string{
		own + "/latest?format=csv", own + "/alerts?format=csv&from=-398d", own + "/devices?format=csv", own + "/analytics?limit=10000&from=-398d",
		fmt.Sprintf("/v1/devices/intruder-%07d/track?format=csv&from=-30d", n), "/v1/fleets",
		fmt.Sprintf("/v1/devices/%s-%03d/track?format=csv&from=-30d", honestFleet, n%(senders*vehiclesOfSender)),
		other + "/latest", other + "/alerts", other + "/devices", other + "/analytics",
	}
	path := paths[n%len(paths)]
	found := &finder{text: []byte(honestFleet)}
	if i.request(ctx, http.MethodGet, path, nil, "", found) == http.StatusOK && (found.yes || strings.HasPrefix(path, other)) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.leaked = path
	}
}

// hold opens a connection that sends nothing, or a body that does not end, until the server closes it.
func (i *intruder) hold(ctx context.Context, n int) {
	conn, err := (&net.Dialer{LocalAddr: i.from}).DialContext(ctx, "tcp", i.api)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	switch n % 3 {
	case 0: // idle
	case 1:
		_, err = fmt.Fprint(conn, "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	case 2:
		_, err = fmt.Fprintf(conn, "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", i.token)
	}
	if err == nil {
		_, _ = io.Copy(io.Discard, conn) // until the server closes it
	}
}

// request returns the status of the response, or 0. It copies the body of a status 200.
func (i *intruder) request(ctx context.Context, method, path string, body []byte, encoding string, to io.Writer) (status int) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+i.api+path, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	request.Header.Set("Authorization", "Bearer "+i.token)
	request.Header.Set("Content-Type", "application/x-ndjson")
	if encoding != "" {
		request.Header.Set("Content-Encoding", encoding)
	}
	response, err := i.client.Do(request)
	if err == nil {
		defer response.Body.Close()
		if status = response.StatusCode; status != http.StatusOK {
			to = io.Discard
		}
		_, _ = io.Copy(to, response.Body) // what arrives of it
	}
	if ctx.Err() == nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.statuses[status]++
	}
	return status
}

// learned returns an error if the intruder has read anything of the honest fleet, or if its own statistics depend on it.
func (i *intruder) learned(ctx context.Context) error {
	var body bytes.Buffer
	err := waitFor(ctx, time.Minute, "the hostile fleet reads its analytics", func() bool {
		body.Reset()
		return i.request(ctx, http.MethodGet, "/v1/fleets/"+hostileFleet+"/analytics?limit=10000&from=-31d", nil, "", &body) == http.StatusOK
	})
	if err != nil {
		return err
	}
	var hours struct {
		Items []struct {
			Km float64 `json:"total_distance_km"`
		}
	}
	if err := json.Unmarshal(body.Bytes(), &hours); err != nil {
		return fmt.Errorf("the analytics of the hostile fleet: %w", err)
	}
	for _, hour := range hours.Items {
		if hour.Km != 0 {
			return fmt.Errorf("devices of the hostile fleet drove %g km, although they stand still", hour.Km)
		}
	}
	if i.leaked != "" {
		return errors.New("the hostile fleet read data of the honest one: " + i.leaked)
	}
	return nil
}

// finder looks for a text in what is written to it.
type finder struct {
	text, tail []byte
	yes        bool
}

func (f *finder) Write(p []byte) (int, error) {
	f.tail = append(f.tail, p...)
	f.yes = f.yes || bytes.Contains(f.tail, f.text)
	f.tail = append(f.tail[:0], f.tail[max(0, len(f.tail)-len(f.text)+1):]...)
	return len(p), nil
}
