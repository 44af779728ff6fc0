package telemetry_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // time zones on any machine

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

// rejection returns the Rejection in an error.
func rejection(t *testing.T, err error) *telemetry.Rejection {
	t.Helper()
	var r *telemetry.Rejection
	require.ErrorAs(t, err, &r)
	return r
}

func TestParseTimestamps(t *testing.T) {
	shanghai, berlin := zone(t, "Asia/Shanghai"), zone(t, "Europe/Berlin")
	utc := func(s string) time.Time {
		at, err := time.Parse("2006-01-02 15:04:05.000", s)
		require.NoError(t, err)
		return at
	}
	noon := utc("2026-03-01 12:00:00.000")
	for name, c := range map[string]struct {
		format telemetry.TimeFormat
		text   string
		want   time.Time
	}{
		"RFC 3339 in UTC":                       {text: "2026-03-01T12:00:00Z", want: noon},
		"RFC 3339 ahead of UTC":                 {text: "2026-03-01T20:00:00+08:00", want: noon},
		"RFC 3339 behind UTC, the day before":   {text: "2026-02-28T23:30:00-12:30", want: noon},
		"RFC 3339 with milliseconds":            {text: "2026-03-01T12:00:00.250Z", want: utc("2026-03-01 12:00:00.250")},
		"RFC 3339 with tenths and a zone":       {text: "2026-03-01T17:30:00.5+05:30", want: utc("2026-03-01 12:00:00.500")},
		"RFC 3339 below the millisecond is cut": {text: "2026-03-01T12:00:00.123999999Z", want: utc("2026-03-01 12:00:00.123")},
		"RFC 3339 keeps its own zone":           {format: telemetry.TimeFormat{Location: shanghai}, text: "2026-03-01T12:00:00Z", want: noon},
		"29 February of a leap year":            {text: "2028-02-29T00:00:00Z", want: utc("2028-02-29 00:00:00.000")},

		"epoch seconds":                          {text: "1772366400", want: noon},
		"epoch seconds with a fraction":          {text: "1772366400.5", want: utc("2026-03-01 12:00:00.500")},
		"epoch seconds with milliseconds":        {text: "1772366400.007", want: utc("2026-03-01 12:00:00.007")},
		"epoch seconds below the millisecond":    {text: "1772366400.1239999", want: utc("2026-03-01 12:00:00.123")},
		"epoch milliseconds":                     {text: "1772366400250", want: utc("2026-03-01 12:00:00.250")},
		"epoch zero":                             {text: "0", want: time.Unix(0, 0)},
		"epoch seconds before 1970":              {text: "-86400", want: time.Unix(-86400, 0)},
		"the last number that is seconds":        {text: "99999999999", want: time.Unix(99999999999, 0)},
		"the first number that is milliseconds":  {text: "100000000000", want: time.UnixMilli(100000000000)},
		"the first such number before the epoch": {text: "-100000000000", want: time.UnixMilli(-100000000000)},
		"epoch has no zone to be moved by":       {format: telemetry.TimeFormat{Location: shanghai}, text: "1772366400", want: noon},

		"naive is UTC by default":             {text: "2026-03-01 12:00:00", want: noon},
		"naive with T":                        {text: "2026-03-01T12:00:00", want: noon},
		"naive with a fraction":               {text: "2026-03-01 12:00:00.250", want: utc("2026-03-01 12:00:00.250")},
		"naive in Shanghai":                   {format: telemetry.TimeFormat{Location: shanghai}, text: "2026-03-01 20:00:00", want: noon},
		"naive in Shanghai, the next day":     {format: telemetry.TimeFormat{Location: shanghai}, text: "2026-03-02T00:30:00", want: utc("2026-03-01 16:30:00.000")},
		"naive in Berlin in winter":           {format: telemetry.TimeFormat{Location: berlin}, text: "2026-03-01 13:00:00", want: noon},
		"naive in Berlin in summer":           {format: telemetry.TimeFormat{Location: berlin}, text: "2026-07-01 14:00:00", want: utc("2026-07-01 12:00:00.000")},
		"layout without a zone":               {format: telemetry.TimeFormat{Layout: "02/01/2006 15:04"}, text: "01/03/2026 12:00", want: noon},
		"layout in Shanghai":                  {format: telemetry.TimeFormat{Layout: "02/01/2006 15:04", Location: shanghai}, text: "01/03/2026 20:00", want: noon},
		"layout with a zone keeps that":       {format: telemetry.TimeFormat{Layout: "2006-01-02 15:04:05 -0700", Location: berlin}, text: "2026-03-01 20:00:00 +0800", want: noon},
		"layout that looks like epoch digits": {format: telemetry.TimeFormat{Layout: "20060102150405"}, text: "20260301120000", want: noon},
	} {
		t.Run(name, func(t *testing.T) {
			ms, err := c.format.Parse(c.text)
			require.NoError(t, err)
			assert.Equal(t, c.want.UTC().Format(time.RFC3339Nano), time.UnixMilli(ms).UTC().Format(time.RFC3339Nano))
		})
	}
}

func TestParseRejectsUnknownFormats(t *testing.T) {
	for name, c := range map[string]struct {
		format telemetry.TimeFormat
		text   string
	}{
		"empty":                            {text: ""},
		"words":                            {text: "yesterday"},
		"a day alone":                      {text: "2026-03-01"},
		"a day that no month has":          {text: "2026-02-30T00:00:00Z"},
		"29 February of a common year":     {text: "2026-02-29T00:00:00Z"},
		"hour 24":                          {text: "2026-03-01T24:00:00Z"},
		"no minutes":                       {text: "2026-03-01T12Z"},
		"text after it":                    {text: "2026-03-01T12:00:00Zulu"},
		"space around it":                  {text: " 1772366400 "},
		"a point without a fraction":       {text: "1772366400."},
		"two points":                       {text: "1772366400.1.2"},
		"sign in the fraction":             {text: "1772366400.-5"},
		"milliseconds with a fraction":     {text: "1772366400250.5"},
		"negative seconds with a fraction": {text: "-5.5"},
		"exponent":                         {text: "1.7723664e9"},
		"more than 64 bits":                {text: "99999999999999999999"},
		"NaN":                              {text: "NaN"},
		"another layout than named":        {format: telemetry.TimeFormat{Layout: "02/01/2006 15:04"}, text: "2026-03-01T12:00:00Z"},
		"epoch where a layout is named":    {format: telemetry.TimeFormat{Layout: "02/01/2006 15:04"}, text: "1772366400"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.format.Parse(c.text)
			r := rejection(t, err)
			assert.Equal(t, telemetry.BadTimestamp, r.Reason)
			assert.Equal(t, telemetry.FieldTimestamp, r.Field)
			assert.Equal(t, c.text, r.Value)
			assert.NotEmpty(t, r.Remedy)
			assert.Contains(t, err.Error(), strconv.Quote(c.text), "the message names the value")
			if c.format.Layout != "" {
				assert.Contains(t, err.Error(), strconv.Quote(c.format.Layout), "the message names the layout that is wanted")
			}
		})
	}
}

func TestSetText(t *testing.T) {
	for name, c := range map[string]struct {
		field, text string
		want        telemetry.Record
	}{
		"device":                      {telemetry.FieldDeviceID, "truck-1", telemetry.Record{DeviceID: "truck-1"}},
		"fleet":                       {telemetry.FieldFleetID, "wuxi", telemetry.Record{FleetID: "wuxi"}},
		"zone":                        {telemetry.FieldZone, "depot", telemetry.Record{Zone: "depot"}},
		"timestamp":                   {telemetry.FieldTimestamp, "2026-03-01T12:00:00Z", telemetry.Record{TimeMs: 1772366400000}},
		"lat":                         {telemetry.FieldLat, "31.5", telemetry.Record{Lat: 31.5}},
		"lon":                         {telemetry.FieldLon, "-120.25", telemetry.Record{Lon: -120.25}},
		"lon with an exponent":        {telemetry.FieldLon, "1.2e2", telemetry.Record{Lon: 120}},
		"speed":                       {telemetry.FieldSpeed, "63.4", telemetry.Record{SpeedKmh: telemetry.Some(63.4)}},
		"speed zero is there":         {telemetry.FieldSpeed, "0", telemetry.Record{SpeedKmh: telemetry.Some(0.0)}},
		"speed out of bounds is kept": {telemetry.FieldSpeed, "-1", telemetry.Record{SpeedKmh: telemetry.Some(-1.0)}},
		"heading":                     {telemetry.FieldHeading, "359.9", telemetry.Record{HeadingDeg: telemetry.Some(359.9)}},
		"temperature":                 {telemetry.FieldTemp, "-18.5", telemetry.Record{TempC: telemetry.Some(-18.5)}},
		"temperature without a zero":  {telemetry.FieldTemp, ".5", telemetry.Record{TempC: telemetry.Some(0.5)}},
		"accuracy":                    {telemetry.FieldAccuracy, "4.5", telemetry.Record{AccuracyM: telemetry.Some(4.5)}},
		"accuracy zero is there":      {telemetry.FieldAccuracy, "0", telemetry.Record{AccuracyM: telemetry.Some(0.0)}},
		"accuracy out of bounds":      {telemetry.FieldAccuracy, "-1", telemetry.Record{AccuracyM: telemetry.Some(-1.0)}},
		"no accuracy":                 {telemetry.FieldAccuracy, " ", telemetry.Record{}},
		"battery":                     {telemetry.FieldBattery, "77", telemetry.Record{BatteryPct: telemetry.Some(int32(77))}},
		"battery rounds down":         {telemetry.FieldBattery, "77.49", telemetry.Record{BatteryPct: telemetry.Some(int32(77))}},
		"battery rounds a half up":    {telemetry.FieldBattery, "77.5", telemetry.Record{BatteryPct: telemetry.Some(int32(78))}},
		"battery rounds up to full":   {telemetry.FieldBattery, "99.5", telemetry.Record{BatteryPct: telemetry.Some(int32(100))}},
		"battery empty is there":      {telemetry.FieldBattery, "0", telemetry.Record{BatteryPct: telemetry.Some(int32(0))}},
		"battery full":                {telemetry.FieldBattery, "100", telemetry.Record{BatteryPct: telemetry.Some(int32(100))}},
		"battery in exponent form":    {telemetry.FieldBattery, "5e1", telemetry.Record{BatteryPct: telemetry.Some(int32(50))}},
		"space around a number":       {telemetry.FieldSpeed, " 7\t", telemetry.Record{SpeedKmh: telemetry.Some(7.0)}},
		"space around a name":         {telemetry.FieldDeviceID, " truck-1 ", telemetry.Record{DeviceID: "truck-1"}},
		"unknown field":               {"color", "red", telemetry.Record{}},
		"no speed":                    {telemetry.FieldSpeed, "", telemetry.Record{}},
		"blank heading":               {telemetry.FieldHeading, "  ", telemetry.Record{}},
		"no temperature":              {telemetry.FieldTemp, "", telemetry.Record{}},
		"no battery":                  {telemetry.FieldBattery, "", telemetry.Record{}},
		"no zone":                     {telemetry.FieldZone, "", telemetry.Record{}},
	} {
		t.Run(name, func(t *testing.T) {
			var r telemetry.Record
			require.NoError(t, r.SetText(c.field, c.text, telemetry.TimeFormat{}))
			assert.Equal(t, c.want, r)
		})
	}
}

func TestSetTextUsesTheTimeFormat(t *testing.T) {
	var r telemetry.Record
	require.NoError(t, r.SetText(telemetry.FieldTimestamp, "2026-03-01 20:00:00", telemetry.TimeFormat{Location: zone(t, "Asia/Shanghai")}))
	assert.Equal(t, int64(1772366400000), r.TimeMs)
}

func TestSetTextRejectsInvalidNumbers(t *testing.T) {
	numbers := []string{
		telemetry.FieldLat, telemetry.FieldLon, telemetry.FieldSpeed, telemetry.FieldHeading, telemetry.FieldTemp, telemetry.FieldBattery,
		telemetry.FieldAccuracy,
	}
	texts := []string{"NaN", "nan", "Inf", "-Inf", "+inf", "infinity", "1e999", "-1e999", "1,5", "12km", "--1", "0x", "0xZZ", "½", "null"}
	for _, field := range numbers {
		for _, text := range texts {
			t.Run(field+" "+text, func(t *testing.T) {
				var record telemetry.Record
				err := record.SetText(field, text, telemetry.TimeFormat{})
				r := rejection(t, err)
				assert.Equal(t, telemetry.Malformed, r.Reason)
				assert.Equal(t, field, r.Field)
				assert.Equal(t, text, r.Value)
				assert.NotEmpty(t, r.Remedy)
				assert.Equal(t, telemetry.Record{}, record, "the record is unchanged")
			})
		}
	}
}

func TestSetTextRejectsInvalidTimestamp(t *testing.T) {
	var record telemetry.Record
	r := rejection(t, record.SetText(telemetry.FieldTimestamp, " noon ", telemetry.TimeFormat{}))
	assert.Equal(t, telemetry.BadTimestamp, r.Reason)
	assert.Equal(t, "noon", r.Value)
}

// Converted to 32 bits, the value could wrap around to a plausible charge.
func TestBatteryOutOfRangeIsRejectedBeforeRounding(t *testing.T) {
	for _, text := range []string{"-0.1", "100.1", "-1", "101", "4294967346", "-4294967246", "1e300"} {
		t.Run(text, func(t *testing.T) {
			var record telemetry.Record
			r := rejection(t, record.SetText(telemetry.FieldBattery, text, telemetry.TimeFormat{}))
			assert.Equal(t, telemetry.BatteryRange, r.Reason)
			assert.Equal(t, telemetry.FieldBattery, r.Field)
			assert.Equal(t, text, r.Value, "the original text")
			assert.False(t, record.BatteryPct.Valid)
		})
	}
	_, err := telemetry.Battery(nan(), "NaN")
	assert.Equal(t, telemetry.BatteryRange, rejection(t, err).Reason)
}

func TestEveryFieldCanBeSet(t *testing.T) {
	texts := map[string]string{telemetry.FieldTimestamp: "1772366400"}
	for _, field := range telemetry.Fields {
		t.Run(field, func(t *testing.T) {
			var r telemetry.Record
			text := texts[field]
			if text == "" {
				text = "7"
			}
			require.NoError(t, r.SetText(field, text, telemetry.TimeFormat{}))
			assert.NotEqual(t, telemetry.Record{}, r)
		})
	}
	assert.Equal(t, []string{"device_id", "fleet_id", "timestamp", "lat", "lon"}, telemetry.RequiredFields)
}

func TestRejectionCanBeUnwrapped(t *testing.T) {
	var record telemetry.Record
	err := record.SetText(telemetry.FieldLat, "north", telemetry.TimeFormat{})
	assert.Equal(t, telemetry.Malformed, rejection(t, errors.Join(errors.New("line 7"), err)).Reason)
	assert.False(t, strings.Contains(err.Error(), "\n"), "one line")
}

func TestOnlyDecimalNumbers(t *testing.T) {
	for _, text := range []string{"0x1p4", "0X10p0", "1_000", "0x_1p4"} {
		var r telemetry.Record
		require.Error(t, r.SetText(telemetry.FieldSpeed, text, telemetry.TimeFormat{}), text)
	}
	_, err := telemetry.TimeFormat{}.Parse("-0.5")
	require.Error(t, err)
}
