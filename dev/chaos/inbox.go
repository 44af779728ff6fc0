package chaos

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"
)

// notification is one alert in a webhook message from Alertmanager.
type notification struct {
	at       time.Time
	Status   string            `json:"status"` // firing or resolved
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
}

func (n notification) name() string { return n.Labels["alertname"] }

// inbox is a webhook receiver that keeps all notifications in order.
type inbox struct {
	server *httptest.Server

	mu   sync.Mutex
	list []notification
}

func openInbox() *inbox {
	i := &inbox{}
	i.server = httptest.NewServer(http.HandlerFunc(i.receive))
	return i
}

func (i *inbox) receive(w http.ResponseWriter, r *http.Request) {
	var message struct{ Alerts []notification }
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

// from returns the notifications from an index on.
func (i *inbox) from(index int) []notification {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.list[index:len(i.list):len(i.list)]
}

// times returns when an alert first fired, from an index on, and when it resolved unless it fires again. Zero is never.
func (i *inbox) times(from int, a alert) (fired, resolved time.Time) {
	for _, n := range i.from(from) {
		switch {
		case !a.matches(n):
		case n.Status == "resolved":
			resolved = n.at
		default:
			resolved = time.Time{}
			if fired.IsZero() {
				fired = n.at
			}
		}
	}
	return fired, resolved
}

// fired returns the names of the alerts that fired from an index on, each once and in order.
func (i *inbox) fired(from int) (names []string) {
	for _, n := range i.from(from) {
		if n.Status == "firing" && !slices.Contains(names, n.name()) {
			names = append(names, n.name())
		}
	}
	return names
}

// alert selects notifications by alert name and, optionally, one label: NAME or NAME{label=value}.
type alert string

func (a alert) name() string {
	name, _, _ := strings.Cut(string(a), "{")
	return name
}

func (a alert) matches(n notification) bool {
	name, rest, labeled := strings.Cut(string(a), "{")
	if n.name() != name {
		return false
	}
	label, value, _ := strings.Cut(strings.TrimSuffix(rest, "}"), "=")
	return !labeled || n.Labels[label] == value
}
