package cassandra

import (
	"context"
	"unsafe"
)

type memoryKey struct{}

// WithMemory returns a context whose reads pass the approximate size of each row to take, in bytes, before they keep it. A
// read ends with the error that take returns. Reads call take concurrently.
func WithMemory(ctx context.Context, take func(bytes int) error) context.Context {
	return context.WithValue(ctx, memoryKey{}, take)
}

// MemoryOf returns the function of WithMemory. Without one, reads are not bounded.
func MemoryOf(ctx context.Context) func(bytes int) error {
	if take, ok := ctx.Value(memoryKey{}).(func(int) error); ok {
		return take
	}
	return func(int) error { return nil }
}

// namesBytes estimates the short texts of a row: names, types and optional values.
const namesBytes = 100

// rowBytes estimates the size of a row while it is read: lists are copied when they grow, and when they are joined.
func rowBytes[T any](row *T) int {
	n := 2*int(unsafe.Sizeof(*row)) + namesBytes
	switch r := any(row).(type) {
	case *Alert:
		n += len(r.Message)
	case *Geofence:
		n += len(r.Geometry)
	}
	return n
}

// Bytes estimates the memory that alerts take.
func (a *Alert) Bytes() int { return int(unsafe.Sizeof(*a)) + namesBytes + len(a.Message) }

// cellBytes is the size of a value in a Result and in a frame that is made of it, without texts.
const cellBytes = 64

// resultBytes estimates the memory that a row of a Result takes, together with a frame that is made of it.
func resultBytes(row []any) int {
	n := int(unsafe.Sizeof(row)) + cellBytes*len(row)
	for _, value := range row {
		if text, ok := value.(string); ok {
			n += 2 * len(text)
		}
	}
	return n
}
