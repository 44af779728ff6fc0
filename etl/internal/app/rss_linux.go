package app

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// peakMemory reads the high-water mark of the process. getrusage's would be that of the parent where a larger process
// started us.
func peakMemory(*syscall.Rusage) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); n == 1 {
			return kilobytes * 1024
		}
	}
	return 0
}
