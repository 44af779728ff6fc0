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

// poison mixes invalid lines into each request, and sends requests that cannot be parsed.
func poison(ctx context.Context, s *scenario) error {
	n := 0
	err := s.breakIt("mixes invalid lines into every request", func() error {
		s.load.mu.Lock()
		defer s.load.mu.Unlock()
		s.load.invalid = func() []invalidLine { n++; return invalidLines(s.load.fleet, n) }
		return nil
	})
	if err != nil {
		return err
	}
	for until := time.Now().Add(s.or(10*time.Second, 5*time.Second)); time.Now().Before(until); {
		if err := s.sendMalformed(ctx); err != nil {
			return err
		}
		if err := process.Sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return s.heal("sends valid lines only", func() error {
		s.load.mu.Lock()
		s.load.invalid = nil
		s.load.mu.Unlock()
		err := waitFor(ctx, time.Minute, "every rejected line is a dead letter, unchanged", func() bool {
			letters, e := s.deadLetters(ctx)
			s.load.mu.Lock()
			defer s.load.mu.Unlock()
			return e == nil && !slices.ContainsFunc(s.load.rejectedRaw, func(line string) bool { return letters[line] == 0 })
		})
		s.load.mu.Lock()
		defer s.load.mu.Unlock()
		s.note("%d invalid lines were rejected for their reasons, and are dead letters, unchanged", len(s.load.rejectedRaw))
		if len(s.load.rejectedRaw) == 0 {
			return errors.New("no response to an invalid line")
		}
		return err
	})
}

// invalidLines returns lines that must be rejected. n makes them differ from the previous ones.
func invalidLines(fleet string, n int) []invalidLine {
	head := fmt.Sprintf(`{"device_id":"%s-poison-%d","fleet_id":%q`, fleet, n, fleet)
	at := time.Now().Add(-behind).UnixMilli()
	return []invalidLine{
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

// sendMalformed sends requests that are rejected as a whole.
func (s *scenario) sendMalformed(ctx context.Context) error {
	for _, r := range []struct {
		kind, encoding string
		body           string
	}{
		{"application/json", "", `[{"device_id":"half","timestamp":`},
		{"application/json", "gzip", "\x1f\x8b\x08 not gzip"},
		{"application/json", "", strings.Repeat("[", 100_000)},
		{"application/x-ndjson", "", ""},
		{"application/x-ndjson", "", strings.Repeat("x", 9<<20)},
	} {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.etl.api+"/v1/telemetry", strings.NewReader(r.body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", r.kind)
		if r.encoding != "" {
			request.Header.Set("Content-Encoding", r.encoding)
		}
		response, err := s.load.client.Do(request)
		if err != nil {
			continue // the server may close the connection of a body that is too large
		}
		_, _ = io.Copy(io.Discard, response.Body) // only the status matters
		response.Body.Close()
		if response.StatusCode/100 != 4 {
			return fmt.Errorf("the API answered %s to %.40q", response.Status, r.body)
		}
	}
	return nil
}

// deadLetters counts the open dead letters by their raw text.
func (p *platform) deadLetters(ctx context.Context) (map[string]int, error) {
	out, err := p.command(ctx, "deadletters", "list", "--format", "json")
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w:\n%s", err, process.Indent(process.LastLines(out, 5)))
	}
	counts := map[string]int{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var letter struct{ Raw string }
		if err := decoder.Decode(&letter); err == io.EOF {
			return counts, nil
		} else if err != nil {
			return nil, fmt.Errorf("list dead letters: %w", err)
		}
		counts[letter.Raw]++
	}
}
