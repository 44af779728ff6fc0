package testenv

import (
	"encoding/csv"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeTest records how a test ends.
type fakeTest struct {
	testing.TB
	outcome string
}

func (f *fakeTest) Helper() {}

func (f *fakeTest) Skipf(format string, args ...any) { f.end("skip: ", format, args) }

func (f *fakeTest) Fatalf(format string, args ...any) { f.end("fail: ", format, args) }

func (f *fakeTest) end(how, format string, args []any) {
	f.outcome = how + fmt.Sprintf(format, args...)
	panic(f)
}

func outcome(do func(testing.TB)) (got string) {
	f := &fakeTest{}
	defer func() {
		_ = recover()
		got = f.outcome
	}()
	do(f)
	return f.outcome
}

func TestMissingServerFailsUnlessAllowed(t *testing.T) {
	redis := func(t testing.TB) { Missing(t, Redis, "no redis-server: apt-get install redis-server") }
	kafka := func(t testing.TB) { KafkaBrokers(t) }
	t.Setenv("KAFKA_TEST_BROKERS", "")
	for allow, want := range map[string][2]string{
		"":               {"fail: no redis-server: apt-get install redis-server (or skip it: FLEET_ALLOW_SKIP=redis)", "fail: KAFKA_TEST_BROKERS is not set"},
		"redis":          {"skip: skipped, as FLEET_ALLOW_SKIP allows: no redis-server", "fail: KAFKA_TEST_BROKERS is not set"},
		"grafana, kafka": {"fail: no redis-server", "skip: skipped, as FLEET_ALLOW_SKIP allows: KAFKA_TEST_BROKERS"},
		"rediss":         {`fail: FLEET_ALLOW_SKIP="rediss": unknown name "rediss"`, `fail: FLEET_ALLOW_SKIP="rediss": unknown name`},
	} {
		t.Setenv(AllowSkip, allow)
		assert.Contains(t, outcome(redis), want[0], allow)
		assert.Contains(t, outcome(kafka), want[1], allow)
	}
	require.NoError(t, os.Unsetenv(AllowSkip)) // t.Setenv restores it
	assert.Contains(t, outcome(redis), "fail: ")
	assert.Contains(t, outcome(kafka), "skip: ", "go test without make")
}

func TestProgramIsFoundInPath(t *testing.T) {
	assert.FileExists(t, Program(t, Tools, "coreutils", "no-such-program", "sh"))
	t.Setenv(AllowSkip, "")
	assert.Contains(t, outcome(func(t testing.TB) { Program(t, Redis, "redis-server", "no-such-program") }),
		"fail: no-such-program is not in PATH: apt-get install redis-server")
}

func TestTaxisCoverADay(t *testing.T) {
	file, err := os.Open(Taxis(t))
	require.NoError(t, err)
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{"longitude", "latitude", "timestamp", "taxi"}, rows[0])
	require.Len(t, rows[1:], TaxiRecords)
	seen, taxis := map[string]bool{}, map[string]bool{}
	for _, r := range rows[1:] {
		at, err := time.Parse(time.DateTime, r[2])
		require.NoError(t, err)
		assert.Equal(t, "2020-07-18", at.Format(time.DateOnly))
		assert.GreaterOrEqual(t, at.Hour(), 8)
		assert.False(t, seen[r[3]+r[2]], "%s has two records at %s", r[3], r[2])
		seen[r[3]+r[2]], taxis[r[3]] = true, true
	}
	assert.Len(t, taxis, TaxiCount)
}
