package queries

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
)

// traces collects the ids under which nodes keep their traces. It implements gocql.Tracer for one request at a time.
type traces [][]byte

// Trace implements gocql.Tracer.
func (t *traces) Trace(id []byte) { *t = append(*t, slices.Clone(id)) }

// trace is what the nodes did for one request.
type trace struct {
	took                       time.Duration // at the coordinator
	sstables, rows, tombstones int           // of the partition with most SSTables; of all replicas
}

// traceWithin is how long a node may take to write a trace. It writes none when it is too busy.
const traceWithin = 5 * time.Second

// read reads the traces. It leaves out the preparing of statements, and traces that the nodes did not write.
func (t traces) read(ctx context.Context, session *gocql.Session) (found []trace, err error) {
	for _, id := range t {
		one, ok, err := readTrace(ctx, session, id)
		if err != nil {
			return nil, fmt.Errorf("read a trace: %w", err)
		}
		if ok {
			found = append(found, one)
		}
	}
	return found, nil
}

func readTrace(ctx context.Context, session *gocql.Session, id []byte) (t trace, ok bool, err error) {
	for deadline := time.Now().Add(traceWithin); t.took == 0; {
		var micros int
		var request string
		err := session.Query("SELECT duration, request FROM system_traces.sessions WHERE session_id = ?", id).
			WithContext(ctx).Consistency(gocql.One).Scan(&micros, &request)
		switch {
		case err != nil && err != gocql.ErrNotFound:
			return t, false, err
		case strings.HasPrefix(request, "Preparing"), time.Now().After(deadline):
			return t, false, nil
		case micros == 0:
			time.Sleep(50 * time.Millisecond)
		}
		t.took = time.Duration(micros) * time.Microsecond
	}
	time.Sleep(100 * time.Millisecond) // replicas may write a little later than the coordinator
	events := session.Query("SELECT activity FROM system_traces.events WHERE session_id = ?", id).WithContext(ctx).Consistency(gocql.One).Iter()
	for activity := ""; events.Scan(&activity); {
		t.add(activity)
	}
	return t, true, events.Close()
}

// add reads the activities of Cassandra 5.
func (t *trace) add(activity string) {
	var sstables, rows, tombstones int
	if n, _ := fmt.Sscanf(activity, "Merged data from memtables and %d sstables", &sstables); n == 1 {
		t.sstables = max(t.sstables, sstables)
	}
	if n, _ := fmt.Sscanf(activity, "Read %d live rows and %d tombstone", &rows, &tombstones); n == 2 {
		t.rows += rows
		t.tombstones += tombstones
	}
}
