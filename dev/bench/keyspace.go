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
	"syscall"
	"time"

	"github.com/gocql/gocql"
)

// keyspace belongs to one fleet-etl binary, which made its tables.
type keyspace struct {
	nodes   Nodes
	name    string
	binary  string
	state   string // ETL_STATE_DIR
	session *gocql.Session
}

// makeKeyspace lets the binary make a keyspace. The caller drops it.
func (n Nodes) makeKeyspace(ctx context.Context, name, binary, dir string) (*keyspace, error) {
	k := &keyspace{nodes: n, name: name, binary: binary, state: filepath.Join(dir, name)}
	schema := k.command(ctx, nil, "schema", "apply")
	schema.Stdout = nil
	if err := schema.Run(); err != nil {
		return nil, fmt.Errorf("make keyspace %s with %s: %w", name, binary, err)
	}
	var err error
	k.session, err = n.connect(name)
	return k, err
}

// drop removes the keyspace, also when ctx has ended.
func (k *keyspace) drop(ctx context.Context) error {
	defer k.session.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downWithin)
	defer cancel()
	if err := k.session.Query("DROP KEYSPACE " + k.name).WithContext(ctx).Exec(); err != nil {
		return fmt.Errorf("drop keyspace %s: %w", k.name, err)
	}
	return nil
}

// empty truncates every table.
func (k *keyspace) empty(ctx context.Context) error {
	tables := k.session.Query("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", k.name).WithContext(ctx).Iter()
	var names []string
	for name := ""; tables.Scan(&name); {
		names = append(names, name)
	}
	err := tables.Close()
	for _, name := range names {
		if err == nil {
			err = k.session.Query("TRUNCATE " + name).WithContext(ctx).Consistency(gocql.All).Exec()
		}
	}
	if err != nil {
		return fmt.Errorf("empty keyspace %s: %w", k.name, err)
	}
	return nil
}

// command is fleet-etl on this keyspace. Its context stops it with SIGTERM.
func (k *keyspace) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, k.binary, args...)
	cmd.Env = append(k.nodes.env(k.name), "ETL_METRICS_ADDRESS=", "ETL_STATE_DIR="+k.state, "LOG_LEVEL=warn")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// usage is what one command used.
type usage struct {
	Records    int64   `json:"records"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"records_per_second"`
	ClientCPU  float64 `json:"client_cpu_seconds"`
	NodesCPU   float64 `json:"nodes_cpu_seconds"`
	PeakMemory int64   `json:"peak_memory_bytes"`
	Writes     int64   `json:"writes"` // mutations of all tables
}

// loadReport is the part of fleet-etl's report (load --report json) that a bench uses.
type loadReport struct {
	Stored     int64   `json:"records_stored"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	PeakMemory int64   `json:"peak_memory_bytes"`
	Tables     map[string]struct {
		Writes int64 `json:"writes"`
	} `json:"tables"`
}

// someRejected is the exit status of a load that stored everything valid and rejected some records.
const someRejected = 2

// measure runs a command that prints a loadReport, and adds the CPU time of the nodes.
func measure(cmd *exec.Cmd, nodes Nodes) (u usage, err error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	before := nodes.cpuSeconds()
	err = cmd.Run()
	u.NodesCPU = nodes.cpuSeconds() - before
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == someRejected {
		err = nil
	}
	var r loadReport
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &r)
	}
	if err == nil && r.Stored == 0 {
		err = errors.New("it stored nothing")
	}
	if err != nil {
		return u, fmt.Errorf("%s: %w", cmd, err)
	}
	u.Records, u.Seconds, u.ClientCPU, u.PeakMemory = r.Stored, r.Seconds, r.CPUSeconds, r.PeakMemory
	u.PerSecond = float64(u.Records) / u.Seconds
	for _, t := range r.Tables {
		u.Writes += t.Writes
	}
	return u, nil
}
