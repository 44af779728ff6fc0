package chaos

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// notification is one alert in a webhook message from Alertmanager.
type notification struct {
	at     time.Time
	Status string            `json:"status"` // firing or resolved
	Labels map[string]string `json:"labels"`
}

func (n notification) name() string { return n.Labels["alertname"] }

// inbox is a webhook receiver that keeps all notifications in order.
type inbox struct {
	url    string
	server *http.Server
	served chan struct{} // closed when the server has ended

	mu   sync.Mutex
	list []notification
}

func openInbox() (*inbox, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	i := &inbox{url: "http://" + l.Addr().String(), served: make(chan struct{})}
	i.server = &http.Server{Handler: http.HandlerFunc(i.receive), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(i.served)
		_ = i.server.Serve(l) // until close
	}()
	return i, nil
}

func (i *inbox) close() {
	_ = i.server.Close()
	<-i.served
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

// len returns the number of notifications, which is the index of the next one.
func (i *inbox) len() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.list)
}

// first returns the first notification from an index on with the status and the alert.
func (i *inbox) first(from int, status string, a alert) (notification, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := slices.IndexFunc(i.list[from:], func(n notification) bool { return n.Status == status && a.matches(n) })
	if at < 0 {
		return notification{}, false
	}
	return i.list[from+at], true
}

// last returns the latest status of an alert from an index on; empty if there is none.
func (i *inbox) last(from int, a alert) (status string, at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range slices.Backward(i.list[from:]) {
		if a.matches(n) {
			return n.Status, n.at
		}
	}
	return "", time.Time{}
}

// fired returns the names of the alerts that fired from an index on, each once and in order.
func (i *inbox) fired(from int) (names []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range i.list[from:] {
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
