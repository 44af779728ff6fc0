package loadtest

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, which Linux fixes for every architecture that Go runs on.
const ticksPerSecond = 100

// Machine is what a measurement was taken on.
type Machine struct {
	Processor string  `json:"processor"`
	Cores     int     `json:"cores"`
	Memory    int64   `json:"memory_bytes"`
	Load      float64 `json:"load_average"` // of the minute before
	Go        string  `json:"go"`
}

// ThisMachine describes the machine; what /proc does not tell is left out.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(load), &m.Load)
	}
	m.Processor = procField("/proc/cpuinfo", "model name")
	var kilobytes int64
	if _, err := fmt.Sscanf(procField("/proc/meminfo", "MemTotal"), "%d kB", &kilobytes); err == nil {
		m.Memory = kilobytes << 10
	}
	return m
}

// procField is the first value of a name in a file of lines "name: value".
func procField(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// CPUOf is the CPU time that processes took so far, in seconds; 0 where /proc does not tell.
func CPUOf(pids []int) (seconds float64) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // past the name, which may hold anything
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			continue
		}
		seconds += ticks(fields[11:13]) // utime, stime
	}
	return seconds
}

// busySeconds is the CPU time that the machine spent on anything, over all cores.
func busySeconds() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return 0
	}
	return ticks(fields[1:4]) + ticks(fields[6:9])
}

func ticks(fields []string) (seconds float64) {
	for _, f := range fields {
		n, _ := strconv.ParseInt(f, 10, 64)
		seconds += float64(n) / ticksPerSecond
	}
	return seconds
}

// openFiles is how many file handles the process has.
func openFiles() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(names) - 1 // the one that reads the directory
}

// resident is the memory that the process has, in bytes.
func resident() int64 {
	var kilobytes int64
	if _, err := fmt.Sscanf(procField("/proc/self/status", "VmRSS"), "%d kB", &kilobytes); err != nil {
		return 0
	}
	return kilobytes << 10
}

// Duration shows seconds to three digits.
func Duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", seconds)
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", seconds)
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.2f ms", seconds*1e3)
}
