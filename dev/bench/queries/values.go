package queries

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gocql/gocql"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// row says what a statement is about. The values of its markers follow from it by the names of their columns.
type row struct {
	fleet, device string
	time          time.Time // ts and the columns that follow from it; in a range of ts its beginning
	until         time.Time // end of a range of ts
	limit         int
	bucket        int // of a read
	written       time.Time
	random        *rand.Rand
}

// ttl of what is written while it is measured.
const ttl = 600

// values binds the markers of a statement.
func (r *row) values(q *gocql.QueryInfo) ([]any, error) {
	values := make([]any, len(q.Args))
	seen := map[string]int{}
	for i, arg := range q.Args {
		if values[i] = r.value(arg.Name, arg.TypeInfo, seen[arg.Name]); values[i] == nil {
			return nil, fmt.Errorf("marker %q: no value for its type %s; see values.go", arg.Name, arg.TypeInfo)
		}
		seen[arg.Name]++
	}
	return values, nil
}

// value is that of a column, the n-th time that the statement has it.
func (r *row) value(column string, kind gocql.TypeInfo, n int) any {
	day := cassandra.DayOf(r.time.UnixMilli())
	switch column {
	case "[timestamp]":
		return r.written.UnixMicro()
	case "[ttl]":
		if expires := r.time.Add(30 * 24 * time.Hour).Sub(r.written); expires > 0 && r.written.Equal(r.time) {
			return int(expires.Seconds())
		}
		return ttl
	case "[limit]":
		return r.limit
	case "fleet_id":
		return r.fleet
	case "in(fleet_id)":
		return []string{r.fleet}
	case "device_id", "name":
		return r.device
	case "instance_id":
		return "_queries-instance"
	case "shard": // of a few fleets
		return 0
	case "bucket":
		return r.bucket
	case "month":
		return day.Month().Time()
	case "severity":
		return cassandra.Severities[r.random.IntN(len(cassandra.Severities))]
	case "alert_type":
		return alertTypes[r.random.IntN(len(alertTypes))]
	case "status":
		return cassandra.StatusActive
	case "kind":
		return "trip"
	}
	switch kind.Type() {
	case gocql.TypeTimestamp:
		if n == 1 {
			return r.until
		}
		if column == "hour" {
			return r.time.Truncate(time.Hour)
		}
		return r.time
	case gocql.TypeDate:
		return day.Time()
	case gocql.TypeInt:
		if column == "hour" {
			return r.time.Hour()
		}
		return r.random.IntN(100)
	case gocql.TypeBigInt:
		return r.random.Int64N(100)
	case gocql.TypeDouble:
		return 50 * r.random.Float64()
	case gocql.TypeBoolean:
		return true
	case gocql.TypeBlob:
		return make([]byte, stateBytes)
	case gocql.TypeSet:
		return []string{r.fleet}
	case gocql.TypeList: // of an IN
		return []string{r.device}
	case gocql.TypeText, gocql.TypeVarchar:
		return "city-center"
	}
	return nil
}

var alertTypes = []string{"geofence_dwell", "geofence_enter", "speed_limit", "battery_low"}

// exec runs a statement for some rows: for several, in one batch, which must be of one partition. It reads all rows.
func exec(ctx context.Context, session *gocql.Session, statement string, level gocql.Consistency, tracer gocql.Tracer, rows ...row) (read int, err error) {
	if len(rows) == 1 {
		q := session.Bind(statement, rows[0].values).WithContext(ctx).Consistency(level).Idempotent(true)
		if tracer != nil {
			q = q.Trace(tracer)
		}
		iter := q.Iter()
		for scanner := iter.Scanner(); scanner.Next(); {
			read++
		}
		return read, iter.Close()
	}
	batch := session.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
	batch.Cons = level
	if tracer != nil {
		batch = batch.Trace(tracer)
	}
	for i := range rows {
		batch.Bind(statement, rows[i].values)
	}
	return 0, session.ExecuteBatch(batch)
}
