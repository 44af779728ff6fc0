package rest

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// Memory bounds the bytes that requests hold at once. One sender gets at most half of it, so that the others have the
// other half. It is safe for concurrent use.
type Memory struct {
	capacity int64

	mu       sync.Mutex
	used     int64
	bySender map[string]int64
}

// NewMemory makes a Memory of so many bytes. use is the label in its metrics.
func NewMemory(capacity int64, use string, reg prometheus.Registerer) *Memory {
	m := &Memory{capacity: capacity, bySender: map[string]int64{}}
	register := promutil.With(prometheus.WrapRegistererWith(prometheus.Labels{"use": use}, reg))
	register.GaugeFunc("fleet_etl_api_memory_bytes", "Memory that requests to the API hold, in bytes, by use (requests, responses).", func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(m.used)
	})
	register.GaugeFunc("fleet_etl_api_memory_capacity_bytes",
		"Largest memory of requests to the API, in bytes, by use. Requests beyond it get status 503; a sender that holds half of it gets 429.",
		func() float64 { return float64(m.capacity) })
	return m
}

// Reserve takes memory for a sender. The error is a Problem: the memory of the sender or of all is in use.
func (m *Memory) Reserve(sender string, bytes int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	const remedy = "retry after Retry-After"
	switch {
	case m.bySender[sender]+bytes > m.capacity/2:
		return Temporary(RateLimited, "too many requests of this sender are in progress", remedy, retryMemory, nil)
	case m.used+bytes > m.capacity:
		return Temporary(Overloaded, "too many requests are in progress", remedy, retryMemory, nil)
	}
	m.used += bytes
	m.bySender[sender] += bytes
	return nil
}

// Release returns memory.
func (m *Memory) Release(sender string, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used -= bytes
	if m.bySender[sender] -= bytes; m.bySender[sender] == 0 {
		delete(m.bySender, sender)
	}
}
