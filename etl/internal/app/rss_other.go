//go:build !linux

package app

import "syscall"

func peakMemory(u *syscall.Rusage) int64 { return u.Maxrss }
