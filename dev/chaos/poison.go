package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// poison mixes lines into each request that have to be refused, and sends requests that can't be read.
func poison(ctx context.Context, t *trial) error {
	n := 0
	err := t.inject("mixes bad lines into every request", func() error {
		t.load.mu.Lock()
		defer t.load.mu.Unlock()
		t.load.bad = func() []badLine { n++; return badLines(t.load.fleet, n) }
		return nil
	})
	if err != nil {
		return err
	}
	for until := time.Now().Add(t.or(10*time.Second, 5*time.Second)); time.Now().Before(until); {
		if err := t.unreadable(ctx); err != nil {
			return err
		}
		if err := process.Sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return t.heal("sends good ones only", func() error {
		t.load.mu.Lock()
		t.load.bad = nil
		t.load.mu.Unlock()
		err := within(ctx, time.Minute, "every refused line is among the dead letters, as it came", func() bool {
			letters, e := t.letters(ctx)
			t.load.mu.Lock()
			defer t.load.mu.Unlock()
			return e == nil && !slices.ContainsFunc(t.load.badTold, func(line string) bool { return letters[line] == 0 })
		})
		t.load.mu.Lock()
		defer t.load.mu.Unlock()
		t.note("%d bad lines refused, each for its reason, and found whole among the dead letters", len(t.load.badTold))
		if len(t.load.badTold) == 0 {
			return errors.New("no bad line was answered")
		}
		return err
	})
}

// badLines are lines that nobody may store. n makes them differ from those before.
func badLines(fleet string, n int) []badLine {
	head := fmt.Sprintf(`{"device_id":"%s-poison-%d","fleet_id":%q`, fleet, n, fleet)
	at := time.Now().Add(-behind).UnixMilli()
	return []badLine{
		{head + `,"timestamp":`, "malformed"},
		{fmt.Sprintf(`%s,"timestamp":%d,"lat":91,"lon":120.3}`, head, at), "lat_range"},
		{fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5,"lon":-181}`, head, at), "lon_range"},
		{fmt.Sprintf(`%s,"timestamp":%d,"lat":0,"lon":0}`, head, at), "zero_position"},
		{fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5,"lon":120.3,"speed_kmh":-1}`, head, at), "speed_range"},
		{fmt.Sprintf(`%s,"timestamp":"yesterday","lat":31.5,"lon":120.3}`, head), "bad_timestamp"},
		{fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5,"lon":120.3}`, head, time.Now().Add(24*time.Hour).UnixMilli()), "future"},
		{fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5}`, head, at), "missing_field"},
	}
}

// unreadable sends requests that are refused as a whole.
func (t *trial) unreadable(ctx context.Context) error {
	for _, r := range []struct {
		kind, encoding string
		body           string
	}{
		{"application/json", "", `[{"device_id":"half","timestamp":`},
		{"application/json", "gzip", "\x1f\x8b\x08 this is no gzip"},
		{"application/json", "", strings.Repeat("[", 100_000)},
		{"application/x-ndjson", "", ""},
		{"application/x-ndjson", "", strings.Repeat("x", 9<<20)},
	} {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+t.api+"/v1/telemetry", strings.NewReader(r.body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", r.kind)
		if r.encoding != "" {
			request.Header.Set("Content-Encoding", r.encoding)
		}
		response, err := t.load.client.Do(request)
		if err != nil {
			continue // a body that is too large may be cut off
		}
		_, _ = io.Copy(io.Discard, response.Body) // the status says it
		response.Body.Close()
		if response.StatusCode/100 != 4 {
			return fmt.Errorf("the API answered %s to %.40q", response.Status, r.body)
		}
	}
	return nil
}

// letters counts the open dead letters by what came, as it came.
func (p *platform) letters(ctx context.Context) (map[string]int, error) {
	out, err := p.run(ctx, "deadletters", "list", "--format", "json")
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	letters := map[string]int{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var letter struct{ Raw string }
		if err := decoder.Decode(&letter); err == io.EOF {
			return letters, nil
		} else if err != nil {
			return nil, fmt.Errorf("list dead letters: %w", err)
		}
		letters[letter.Raw]++
	}
}
