package cassandra

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gocql/gocql"
)

// Watch sees every request that is made under its context, and can have the nodes trace them. It is safe for concurrent
// use.
type Watch struct {
	traced bool

	mu       sync.Mutex
	requests []Request
	traces   []*requestTrace
}

// Request is a request that was sent to a node, a page of a read or a retry among them.
type Request struct {
	Statements []string // those of a batch, each once; of anything else the one
	Entries    int      // of the batch; 1 where it is none
	Bytes      int      // about the values that were sent
	Rows       int      // that came back
	Took       time.Duration
	Err        error
}

type watchKey struct{}

// WithWatch makes a context whose requests are watched. Traced requests are dearer than others, for the nodes write
// down what they do: take times from a watch without.
func WithWatch(ctx context.Context, trace bool) (context.Context, *Watch) {
	w := &Watch{traced: trace}
	return context.WithValue(ctx, watchKey{}, w), w
}

// Requests is what was seen so far.
func (w *Watch) Requests() []Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Request(nil), w.requests...)
}

func watchOf(ctx context.Context) *Watch {
	w, _ := ctx.Value(watchKey{}).(*Watch)
	return w
}

func (w *Watch) add(r Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r)
}

// tracer gives the driver somebody to tell where the nodes wrote down what they did for a statement, or nil.
func tracer(ctx context.Context, statement string) gocql.Tracer {
	w := watchOf(ctx)
	if w == nil || !w.traced {
		return nil
	}
	t := &requestTrace{watch: w, statement: statement}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.traces = append(w.traces, t)
	return t
}

// requestTrace is the traces of one request: one for each page.
type requestTrace struct {
	watch     *Watch
	statement string
	ids       [][]byte
}

// Trace implements gocql.Tracer.
func (t *requestTrace) Trace(id []byte) {
	t.watch.mu.Lock()
	defer t.watch.mu.Unlock()
	t.ids = append(t.ids, append([]byte(nil), id...))
}

// Trace is what the nodes say that they did for one request.
type Trace struct {
	Statement  string
	Prepare    bool          // the statement was only prepared
	Took       time.Duration // at the coordinator
	Nodes      int           // that had a part in it
	Partitions int           // that were read
	SSTables   int           // that were merged for the partition that needed most
	Rows       int           // live rows read, by all replicas
	Tombstones int           // tombstones read, by all replicas
}

// traceWait is how long the nodes may take to write a trace down: they do so aside from answering, and not at all when
// they are too busy.
const traceWait = 5 * time.Second

// tracesRead is how many traces of a watch are read: of a thousand like requests a sample will do.
const tracesRead = 100

// Traces reads what the nodes wrote down of the requests under a watch, of the first hundred. The user needs the right to
// read system_traces.
func (s *Session) Traces(ctx context.Context, w *Watch) ([]Trace, error) {
	type one struct {
		statement string
		id        []byte
	}
	var list []one
	w.mu.Lock()
	for _, t := range w.traces {
		for _, id := range t.ids {
			list = append(list, one{t.statement, id})
		}
	}
	w.mu.Unlock()
	traces, err := fanOut(ctx, s.config.Fanout, list[:min(len(list), tracesRead)], func(ctx context.Context, o one) (Trace, error) {
		return s.trace(ctx, o.statement, o.id)
	})
	return slices.DeleteFunc(traces, func(t Trace) bool { return t.Took == 0 }), err
}

// trace reads one trace. It is empty when the nodes have not written it down.
func (s *Session) trace(ctx context.Context, statement string, id []byte) (Trace, error) {
	const op = "read trace"
	t := Trace{Statement: statement}
	for deadline := time.Now().Add(traceWait); ; {
		var micros int
		var request string
		err := s.driver.Query("SELECT duration, request FROM system_traces.sessions WHERE session_id = ?", id).
			WithContext(ctx).Consistency(gocql.One).Scan(&micros, &request)
		if err == nil && micros > 0 {
			t.Took = time.Duration(micros) * time.Microsecond
			t.Prepare = prepares.MatchString(request)
			break
		}
		if err != nil && err != gocql.ErrNotFound {
			return t, opError(op, err)
		}
		if time.Now().After(deadline) {
			return Trace{}, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	// What replicas did may be written a little later than the end.
	for before := -1; ; {
		iter := s.driver.Query("SELECT activity, source FROM system_traces.events WHERE session_id = ?", id).
			WithContext(ctx).Consistency(gocql.One).Iter()
		found := t
		nodes := map[string]bool{}
		var activity, source string
		for iter.Scan(&activity, &source) {
			nodes[source] = true
			found.add(activity)
		}
		n := iter.NumRows()
		if err := iter.Close(); err != nil {
			return t, opError(op, err)
		}
		if n == before {
			found.Nodes = len(nodes)
			return found, nil
		}
		before = n
		time.Sleep(100 * time.Millisecond)
	}
}

// What Cassandra 5 writes into traces.
var (
	prepares      = regexp.MustCompile(`^Preparing`)
	readPartition = regexp.MustCompile(`^Executing single-partition query on `)
	mergedTables  = regexp.MustCompile(`^Merged data from memtables and (\d+) sstables`)
	readRows      = regexp.MustCompile(`^Read (\d+) live rows.* (\d+) tombstone`)
)

func (t *Trace) add(activity string) {
	if readPartition.MatchString(activity) {
		t.Partitions++
	}
	if m := mergedTables.FindStringSubmatch(activity); m != nil {
		n, _ := strconv.Atoi(m[1])
		t.SSTables = max(t.SSTables, n)
	}
	if m := readRows.FindStringSubmatch(activity); m != nil {
		rows, _ := strconv.Atoi(m[1])
		tombstones, _ := strconv.Atoi(m[2])
		t.Rows += rows
		t.Tombstones += tombstones
	}
}

// sizeOf is about the bytes of values as they are sent.
func sizeOf(values []any) int {
	n := 0
	for _, v := range values {
		switch v := v.(type) {
		case *cell:
			n += 4 + len(*v)
		case string:
			n += 4 + len(v)
		case []byte:
			n += 4 + len(v)
		case []string:
			for _, text := range v {
				n += 4 + len(text)
			}
		default:
			n += 12
		}
	}
	return n
}
