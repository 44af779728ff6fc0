package probe

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine describes the machine of a measurement.
type Machine struct {
	Processor   string  `json:"processor"`
	Cores       int     `json:"cores"`
	Memory      int64   `json:"memory_bytes"`
	LoadAverage float64 `json:"load_average"` // of the minute before
	Go          string  `json:"go"`
}

// ThisMachine reads /proc.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Processor: procField("/proc/cpuinfo", "model name")}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(load), &m.LoadAverage)
	}
	var kilobytes int64
	_, _ = fmt.Sscanf(procField("/proc/meminfo", "MemTotal"), "%d kB", &kilobytes)
	m.Memory = kilobytes << 10
	return m
}

// procField is the first value of a name in a file of lines "name: value".
func procField(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// busySeconds is the CPU time that the machine has spent, over all cores.
func busySeconds() (seconds float64) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	var user, nice, system, idle, iowait, irq, softirq, steal float64
	_, _ = fmt.Sscanf(string(stat), "cpu %f %f %f %f %f %f %f %f", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal)
	const ticksPerSecond = 100 // USER_HZ of Linux
	return (user + nice + system + irq + softirq + steal) / ticksPerSecond
}
