package app

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"

	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// report is the result of a load.
type report struct {
	Files         []string         `json:"files"`
	Read          int64            `json:"records_read"`
	Stored        int64            `json:"records_stored"`
	Duplicates    int64            `json:"records_duplicate"`
	Rejected      map[string]int64 `json:"records_rejected"`
	RejectedTotal int64            `json:"records_rejected_total"`
	NotStored     int64            `json:"records_not_stored"` // received and valid, but not durable at the end

	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"records_per_second"`
	Bytes     int64   `json:"bytes_read"`

	Tables  map[string]executor.Writes `json:"tables"`
	Retries int64                      `json:"write_retries"`
	Errors  map[string]int64           `json:"write_errors"` // by reason, including those whose retry succeeded

	CPUSeconds  float64 `json:"cpu_seconds"`
	PeakMemory  int64   `json:"peak_memory_bytes"`
	DeadLetters string  `json:"dead_letters,omitempty"`
	Result      string  `json:"result"`
}

// newReport reports the records of a pipeline.
func newReport(files []string, s pipeline.Summary) *report {
	r := &report{
		Files: files, Read: s.Received, Stored: s.Stored, Duplicates: s.Duplicates, RejectedTotal: total(s.Rejected),
		Rejected: map[string]int64{}, Tables: map[string]executor.Writes{}, Errors: map[string]int64{},
	}
	r.NotStored = r.Read - r.Stored - r.Duplicates - r.RejectedTotal
	for reason, n := range s.Rejected {
		r.Rejected[string(reason)] = n
	}
	return r
}

// report reports on an App that has ended.
func (a *App) report(files []string, progress func() (done, total int64)) *report {
	r := newReport(files, a.pipeline.Summary())
	r.Seconds, r.PerSecond = a.took.Seconds(), float64(r.Stored)/a.took.Seconds()
	r.Bytes, _ = progress()
	r.Tables, r.Errors, r.Retries = a.exec.Writes(), a.exec.Errors(), a.exec.Retries()
	if r.RejectedTotal > 0 {
		r.DeadLetters = a.deadLetters.Path()
	}
	r.CPUSeconds, r.PeakMemory = usage()
	return r
}

// usage returns the CPU time of the process in seconds and its peak resident memory in bytes.
func usage() (cpu float64, memory int64) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, 0
	}
	memory = u.Maxrss
	// Linux gives the peak of the parent as Maxrss where a larger process started this one.
	if self, err := procfs.Self(); err == nil {
		if status, err := self.NewStatus(); err == nil {
			memory = int64(status.VmHWM)
		}
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), memory
}

func (r *report) finish(err error) {
	switch {
	case err != nil:
		r.Result = err.Error()
	case r.RejectedTotal > 0:
		r.Result = "all valid records are stored; some records were rejected"
	default:
		r.Result = "all records are stored"
	}
}

func (r *report) print(out io.Writer, form string) error {
	if form == "json" {
		return printJSON(out, r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "files\t%s\n", strings.Join(r.Files, ", "))
	fmt.Fprintf(w, "records read\t%d\n", r.Read)
	fmt.Fprintf(w, "records stored\t%d\n", r.Stored)
	fmt.Fprintf(w, "duplicates\t%d\n", r.Duplicates)
	fmt.Fprintf(w, "rejected\t%d\n", r.RejectedTotal)
	r.printRejected(w)
	if r.NotStored > 0 {
		fmt.Fprintf(w, "not stored\t%d\n", r.NotStored)
	}
	fmt.Fprintf(w, "time\t%.2f s\n", r.Seconds)
	fmt.Fprintf(w, "rate\t%.0f records/s\n", r.PerSecond)
	fmt.Fprintf(w, "bytes read\t%d\n", r.Bytes)
	for _, table := range slices.Sorted(maps.Keys(r.Tables)) {
		t := r.Tables[table]
		fmt.Fprintf(w, "%s\t%d rows in %d writes, P50 %s, P95 %s, P99 %s\n", table, t.Rows, t.Writes, milli(t.P50), milli(t.P95), milli(t.P99))
	}
	fmt.Fprintf(w, "write errors\t%s\n", countsText(r.Errors))
	fmt.Fprintf(w, "CPU\t%.2f s\n", r.CPUSeconds)
	fmt.Fprintf(w, "peak memory\t%.0f MB\n", float64(r.PeakMemory)/1e6)
	if r.DeadLetters != "" {
		fmt.Fprintf(w, "dead letters\t%s\n", r.DeadLetters)
	}
	fmt.Fprintf(w, "result\t%s\n", r.Result)
	return w.Flush()
}

// printRejected prints the rejected records by reason.
func (r *report) printRejected(w io.Writer) {
	for _, reason := range slices.Sorted(maps.Keys(r.Rejected)) {
		fmt.Fprintf(w, "  %s\t%d\n", reason, r.Rejected[reason])
	}
}

// printJSON prints the JSON form of a report.
func printJSON(out io.Writer, report any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

func milli(seconds float64) string { return fmt.Sprintf("%.1f ms", 1000*seconds) }

func countsText(n map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%d %s", n[name], name))
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}

func total(n map[telemetry.Reason]int64) (sum int64) {
	for _, v := range n {
		sum += v
	}
	return sum
}
