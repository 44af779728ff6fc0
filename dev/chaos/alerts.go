package chaos

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// told is one alert of a message that came to people.
type told struct {
	at     time.Time
	Status string            `json:"status"` // firing or resolved
	Labels map[string]string `json:"labels"`
}

func (t told) name() string { return t.Labels["alertname"] }

// inbox keeps what Alertmanager tells people, in order.
type inbox struct {
	url    string
	server *http.Server

	mu   sync.Mutex
	list []told
}

func openInbox() (*inbox, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	i := &inbox{url: "http://" + l.Addr().String()}
	i.server = &http.Server{Handler: http.HandlerFunc(i.take), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = i.server.Serve(l) }() // until close
	return i, nil
}

func (i *inbox) close() { _ = i.server.Close() }

func (i *inbox) take(w http.ResponseWriter, r *http.Request) {
	var message struct{ Alerts []told }
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range message.Alerts {
		a.at = time.Now()
		i.list = append(i.list, a)
	}
}

// now is the place of the next alert.
func (i *inbox) now() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.list)
}

// first is the first alert from a place on with this status that wanted describes.
func (i *inbox) first(from int, status string, w wanted) (told, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := slices.IndexFunc(i.list[from:], func(t told) bool { return t.Status == status && w.describes(t) })
	if at < 0 {
		return told{}, false
	}
	return i.list[from+at], true
}

// last is the last status that was told of what wanted describes; empty: nothing was.
func (i *inbox) last(from int, w wanted) (status string, at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range slices.Backward(i.list[from:]) {
		if w.describes(t) {
			return t.Status, t.at
		}
	}
	return "", time.Time{}
}

// names of the alerts that were told as firing from a place on, each once and in order.
func (i *inbox) names(from int) (names []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range i.list[from:] {
		if t.Status == "firing" && !slices.Contains(names, t.name()) {
			names = append(names, t.name())
		}
	}
	return names
}

// wanted is an alert that people have to hear of: its name, and where it matters a label, as NAME{label=value}.
type wanted string

func (w wanted) name() string {
	name, _, _ := strings.Cut(string(w), "{")
	return name
}

func (w wanted) describes(t told) bool {
	name, rest, labelled := strings.Cut(string(w), "{")
	if t.name() != name {
		return false
	}
	if !labelled {
		return true
	}
	label, value, _ := strings.Cut(strings.TrimSuffix(rest, "}"), "=")
	return t.Labels[label] == value
}

// pace is how many times as fast as usual the time of alerts' rules runs, so that what people hear of within minutes is heard of
// within seconds.
const pace = 12

var (
	ruleTimes  = regexp.MustCompile(`(for: |\[|:|offset )(\d+)(m|h)\b`)
	ruleLevels = strings.NewReplacer(") > 120\n", fmt.Sprintf(") > %d\n", 120/pace), ") > 300\n", fmt.Sprintf(") > %d\n", 300/pace),
		"spool_oldest_seconds[25s]) > 60\n", fmt.Sprintf("spool_oldest_seconds[25s]) > %d\n", 60/pace))
)

// hasten is an edit of prometheus/. Error budgets are not told of: a fault spends that of the short time for which Prometheus has known
// the platform, and while it burns, what concerns vehicles is held back.
func hasten(file, text string) string {
	switch file {
	case "prometheus.yml":
		// A node looks through many thousands of MBeans for a scrape: four of them every 2 s keep two processors busy, and none answers in time.
		return strings.NewReplacer("scrape_interval: 15s", "scrape_interval: 2s", "evaluation_interval: 15s", "evaluation_interval: 1s",
			"    scrape_timeout: 10s", "    scrape_interval: 4s\n    scrape_timeout: 4s").Replace(text)
	case "rules/recording.yml":
		return strings.ReplaceAll(text, "interval: 1m", "interval: 5s")
	case "rules/slo-alerts.yml":
		return strings.NewReplacer("for: 2m", "for: 2h", "for: 15m", "for: 2h").Replace(text)
	case "rules/cause-alerts.yml":
		text = ruleTimes.ReplaceAllStringFunc(text, func(match string) string {
			parts := ruleTimes.FindStringSubmatch(match)
			n, err := strconv.Atoi(parts[2])
			if err != nil {
				return match
			}
			if parts[3] == "h" {
				n *= 60
			}
			return fmt.Sprintf("%s%ds", parts[1], n*60/pace)
		})
		return ruleLevels.Replace(text)
	}
	return text
}

// hastenAlertmanager keeps the order in which things are told: of the graver first.
func hastenAlertmanager(file, text string) string {
	if file != "alertmanager.yml" {
		return text
	}
	return strings.NewReplacer("group_wait: 30s", "group_wait: 2s", "group_wait: 10s", "group_wait: 1s",
		"group_interval: 1m", "group_interval: 1s", "group_interval: 5m", "group_interval: 2s").Replace(text)
}
