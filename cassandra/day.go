package cassandra

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/gocql/gocql"
)

// Day is a UTC day as the number of days since 1970-01-01.
type Day int32

const msPerDay = 24 * 60 * 60 * 1000

// DayOf is the UTC day of a time in Unix milliseconds.
func DayOf(ms int64) Day {
	d := ms / msPerDay
	if ms%msPerDay < 0 {
		d--
	}
	return Day(d)
}

// Month is the first day of the day's month.
func (d Day) Month() Day {
	return d - Day(d.Time().Day()) + 1
}

// NextMonth is the first day of the month after the day's.
func (d Day) NextMonth() Day {
	return (d.Month() + 31).Month()
}

// Time is the first instant of the day.
func (d Day) Time() time.Time { return time.UnixMilli(int64(d) * msPerDay).UTC() }

// String gives the day as 2006-01-02.
func (d Day) String() string { return d.Time().Format(time.DateOnly) }

// A CQL date is the number of days since 1970, counted from the middle of the unsigned range.
const dateOfEpoch = 1 << 31

// MarshalCQL implements gocql.Marshaler.
func (d Day) MarshalCQL(gocql.TypeInfo) ([]byte, error) {
	return binary.BigEndian.AppendUint32(nil, uint32(d)+dateOfEpoch), nil
}

// UnmarshalCQL implements gocql.Unmarshaler. A null is 0.
func (d *Day) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	switch len(data) {
	case 0:
		*d = 0
	case 4:
		*d = Day(binary.BigEndian.Uint32(data) - dateOfEpoch)
	default:
		return fmt.Errorf("date of %d bytes", len(data))
	}
	return nil
}
