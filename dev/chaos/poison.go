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

// sendPoison mixes invalid lines into each request, and sends requests that cannot be parsed.
func sendPoison(ctx context.Context, s *scenario) error {
	s.load.poisonous.Store(true)
	for until := time.Now().Add(s.brief(10 * time.Second)); time.Now().Before(until); {
		if err := s.sendMalformed(ctx); err != nil {
			return err
		}
		if err := process.Sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func checkPoison(ctx context.Context, s *scenario) error {
	s.load.poisonous.Store(false)
	var lines []string
	err := waitFor(ctx, time.Minute, "every rejected line is a dead letter, unchanged", func() bool {
		letters, err := s.deadLetters(ctx)
		_, lines = s.load.rejections()
		return err == nil && !slices.ContainsFunc(lines, func(line string) bool { return !letters[line] })
	})
	s.note("%d invalid lines were rejected for their reasons, and are dead letters, unchanged", len(lines))
	if len(lines) == 0 {
		return errors.New("no response to an invalid line")
	}
	return err
}

// invalidLines returns lines that must be rejected. n makes them differ from the previous ones.
func invalidLines(fleet string, n int64) []line {
	head := fmt.Sprintf(`{"device_id":"%s-poison-%d","fleet_id":%q`, fleet, n, fleet)
	at := time.Now().Add(-behind).UnixMilli()
	return []line{
		{text: head + `,"timestamp":`, reason: "malformed"},
		{text: fmt.Sprintf(`%s,"timestamp":%d,"lat":91,"lon":120.3}`, head, at), reason: "lat_range"},
		{text: fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5,"lon":-181}`, head, at), reason: "lon_range"},
		{text: fmt.Sprintf(`%s,"timestamp":%d,"lat":0,"lon":0}`, head, at), reason: "zero_position"},
		{text: fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5,"lon":120.3,"speed_kmh":-1}`, head, at), reason: "speed_range"},
		{text: fmt.Sprintf(`%s,"timestamp":"yesterday","lat":31.5,"lon":120.3}`, head), reason: "bad_timestamp"},
		{text: fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5,"lon":120.3}`, head, time.Now().Add(24*time.Hour).UnixMilli()), reason: "future"},
		{text: fmt.Sprintf(`%s,"timestamp":%d,"lat":31.5}`, head, at), reason: "missing_field"},
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
		status, _, err := s.load.do(request)
		if err != nil {
			continue // the server may close the connection of a body that is too large
		}
		if status/100 != 4 {
			return fmt.Errorf("the API answered %d to %.40q", status, r.body)
		}
	}
	return nil
}

// deadLetters returns the raw texts of the open dead letters.
func (p *platform) deadLetters(ctx context.Context) (map[string]bool, error) {
	out, err := p.command(ctx, "deadletters", "list", "--format", "json")
	letters := map[string]bool{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); err == nil; {
		var letter struct{ Raw string }
		if err = decoder.Decode(&letter); err == nil {
			letters[letter.Raw] = true
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return letters, err
}
