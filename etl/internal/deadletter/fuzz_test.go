package deadletter

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// FuzzRead checks that any file is read to its end, each line as an entry or as torn, and that an entry with any text that
// is appended to it is read as it was written.
func FuzzRead(f *testing.F) {
	const entry = `{"time":"2026-11-18T10:26:40Z","source":"csvfile","origin":"f.csv","position":2,"reason":"lat_range","field":"lat","value":"91","remedy":"r","raw":"x","record":{"lat":"91"}}`
	for _, text := range []string{entry + "\n", entry + "\n\n" + entry[:40], "null\n{}\n[]\n", strings.Repeat(" \r\n", 3), "\xff\x00", ""} {
		f.Add([]byte(text), "bus-1,wuxi\xff\x00\u2028,\"1\n")
	}
	dir := f.TempDir()
	path := filepath.Join(dir, currentName)
	now := time.Date(2026, 11, 18, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte, raw string) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		written := pipeline.Rejected{Rejection: telemetry.Reject(telemetry.LatRange, "lat", raw, "fix "+raw), Position: 9, Raw: raw, Fields: map[string]string{"lat": raw}}
		file := newFile(dir, 1<<40, func() time.Time { return now })
		require.NoError(t, file.Append(t.Context(), "csvfile", raw, []pipeline.Rejected{written}))
		require.NoError(t, file.Close())
		queue, err := Open(dir, false)
		require.NoError(t, err)
		defer queue.Close()
		var lines [][]byte
		for _, line := range bytes.Split(text, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				lines = append(lines, line)
			}
		}
		n, last := 0, Entry{}
		for e, err := range queue.All() {
			require.NoError(t, err)
			n++
			require.Greater(t, e.Number, last.Number)
			require.NotEmpty(t, e.Reason)
			if e.Number <= int64(len(lines)) {
				sum := sha256.Sum256(lines[e.Number-1])
				require.Equal(t, sum[:16], e.ID[:])
			}
			last = e
		}
		require.EqualValues(t, len(lines)+1, int64(n)+queue.Torn())
		require.EqualValues(t, len(lines)+1, last.Number)
		require.Equal(t, strings.ToValidUTF8(raw, "\uFFFD"), last.Raw)
		require.Equal(t, "lat_range", last.Reason)
		require.Equal(t, now, last.Time)
		require.Equal(t, []any{int64(9), 1}, []any{last.Position, len(last.Record)})

		// The list of reprocessed dead letters is read to its end, too.
		require.LessOrEqual(t, len(parseIDs(text)), len(text)/32)
	})
}
