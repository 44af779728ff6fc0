package reader

import (
	"fmt"
	"runtime/debug"
)

// PanicError is a panic while a query ran. A bug in one query must not end the plugin and all other queries with it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// CatchPanic turns a panic into the error of a function. Defer it in every goroutine of a query.
func CatchPanic(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{p, debug.Stack()}
	}
}
