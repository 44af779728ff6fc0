// Package httpserve has what both sides of the IoT API's server need: a response that knows its status, and complaints
// that don't fill the log.
package httpserve

import (
	"net/http"
	"sync"
	"time"
)

// Response is a response that knows what became of it.
type Response struct {
	http.ResponseWriter
	Status int // 0 until the header is sent
}

// WriteHeader implements http.ResponseWriter.
func (r *Response) WriteHeader(status int) {
	if r.Status == 0 {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *Response) Write(b []byte) (int, error) {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (r *Response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// complaintPause is how long a complaint is not repeated.
const complaintPause = 10 * time.Second

// Complaint keeps a fault that concerns every request from filling the log.
type Complaint struct {
	mu   sync.Mutex
	last time.Time
}

// Due tells whether the complaint is to be made now.
func (c *Complaint) Due(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last.IsZero() && now.Sub(c.last) < complaintPause {
		return false
	}
	c.last = now
	return true
}
