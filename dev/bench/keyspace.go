package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gocql/gocql"
)

// Keyspace has the tables of one fleet-etl binary.
type Keyspace struct {
	Nodes   Nodes
	Name    string
	Session *gocql.Session
}

// MakeKeyspace lets a binary make a keyspace, or leaves one as it is. The caller closes its session.
func (n Nodes) MakeKeyspace(ctx context.Context, name, binary string) (*Keyspace, error) {
	k := &Keyspace{Nodes: n, Name: name}
	if out, err := k.Command(ctx, nil, binary, "schema", "apply").Output(); err != nil {
		return nil, fmt.Errorf("make keyspace %s with %s: %w\n%s", name, binary, err, out)
	}
	var err error
	k.Session, err = n.Connect(name)
	return k, err
}

// Empty truncates every table.
func (k *Keyspace) Empty(ctx context.Context) error {
	tables := k.Session.Query("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", k.Name).WithContext(ctx).Iter()
	var names []string
	for name := ""; tables.Scan(&name); {
		names = append(names, name)
	}
	err := tables.Close()
	for _, name := range names {
		if err == nil {
			err = k.Session.Query("TRUNCATE " + name).WithContext(ctx).Consistency(gocql.All).Exec()
		}
	}
	if err != nil {
		return fmt.Errorf("empty keyspace %s: %w", k.Name, err)
	}
	return nil
}

// Command is a program with the settings of fleet-etl for this keyspace. Its context stops it with SIGTERM. The caller
// redirects its standard output.
func (k *Keyspace) Command(ctx context.Context, env []string, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(),
		"CASSANDRA_HOSTS="+strings.Join(k.Nodes.Hosts, ","), "CASSANDRA_DC="+k.Nodes.LocalDC, "CASSANDRA_REPLICATION="+k.Nodes.DCs, "CASSANDRA_KEYSPACE="+k.Name,
		"ETL_METRICS_ADDRESS=", "ETL_STATE_DIR="+filepath.Join(k.Nodes.Dir, k.Name), "LOG_LEVEL=warn")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// Report is the part of fleet-etl's report (load --report json) that a bench uses.
type Report struct {
	Stored     int64                  `json:"records_stored"`
	Rejected   int64                  `json:"records_rejected_total"`
	Seconds    float64                `json:"seconds"`
	CPUSeconds float64                `json:"cpu_seconds"`
	PeakMemory int64                  `json:"peak_memory_bytes"`
	Tables     map[string]TableWrites `json:"tables"`
}

// TableWrites counts the mutations of a table.
type TableWrites struct{ Writes int64 }

// Usage is the cost of one command.
type Usage struct {
	Report
	NodesCPU float64 // seconds
}

// PerSecond is the number of records stored per second.
func (u Usage) PerSecond() float64 { return float64(u.Stored) / u.Seconds }

// Measure runs a command that prints a Report, and adds the CPU time of the nodes.
func Measure(cmd *exec.Cmd, nodes Nodes) (u Usage, err error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	before := nodes.CPUSeconds()
	err = cmd.Run()
	u.NodesCPU = nodes.CPUSeconds() - before
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &u.Report)
	}
	if err == nil && u.Stored == 0 {
		err = errors.New("it stored nothing")
	}
	if err != nil {
		return u, fmt.Errorf("%s: %w", cmd, err)
	}
	return u, nil
}
