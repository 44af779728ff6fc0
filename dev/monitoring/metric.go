package monitoring

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/dev/process"
)

// Metric scrapes a URL in the Prometheus text format and returns the sum of the series with the name and all of the labels; -1 if
// there are none or the scrape fails within five seconds.
func Metric(url, name string, labels ...string) float64 {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var text bytes.Buffer
	if err := process.Fetch(ctx, url, &text); err != nil {
		return -1
	}
	sum, found := 0.0, false
	for line := range strings.Lines(text.String()) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &value); err == nil {
			sum, found = sum+value, true
		}
	}
	if !found {
		return -1
	}
	return sum
}
