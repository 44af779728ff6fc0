package monitoring

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Metric scrapes a URL in the Prometheus text format and returns the sum of the series with the name and all of the labels; -1 if
// there are none or the scrape fails. The client limits the time.
func Metric(client *http.Client, url, name string, labels ...string) float64 {
	response, err := client.Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		return -1
	}
	defer response.Body.Close()
	sum, found := 0.0, false
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &value); err == nil {
			sum, found = sum+value, true
		}
	}
	if !found || lines.Err() != nil {
		return -1
	}
	return sum
}
