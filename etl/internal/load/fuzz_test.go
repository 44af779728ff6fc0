package load

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

// FuzzDeadLetters holds that any file of dead letters is read to its end, each line of it a letter or told to be none, and
// that a letter which is written behind it, with any text, is read as it was written.
func FuzzDeadLetters(f *testing.F) {
	const letter = `{"time":"2026-11-18T10:26:40Z","source":"csvfile","origin":"f.csv","position":2,"reason":"lat_range","field":"lat","value":"91","remedy":"r","raw":"x","record":{"lat":"91"}}`
	for _, text := range []string{letter + "\n", letter + "\n\n" + letter[:40], "null\n{}\n[]\n", strings.Repeat(" \r\n", 3), "\xff\x00", ""} {
		f.Add([]byte(text), "bus-1,wuxi\xff\x00\u2028,\"1\n")
	}
	dir := f.TempDir()
	path := filepath.Join(dir, deadLetterFile)
	now := time.Date(2026, 11, 18, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text []byte, raw string) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		written := pipeline.Rejected{Rejection: telemetry.Reject(telemetry.LatRange, "lat", raw, "mend "+raw), Position: 9, Raw: raw, Fields: map[string]string{"lat": raw}}
		file := NewDeadLetterFile(dir, 1<<40, func() time.Time { return now })
		require.NoError(t, file.Append(t.Context(), "csvfile", raw, []pipeline.Rejected{written}))
		require.NoError(t, file.Close())
		letters, err := OpenLetters(dir)
		require.NoError(t, err)
		defer letters.Close()
		var lines [][]byte
		for _, line := range bytes.Split(text, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				lines = append(lines, line)
			}
		}
		var n int
		for l, err := range letters.All() {
			require.NoError(t, err)
			n++
			require.Equal(t, int64(n), l.Number)
			require.True(t, l.Torn || l.Reason != "")
			if n <= len(lines) {
				sum := sha256.Sum256(lines[n-1])
				require.Equal(t, sum[:16], l.ID[:])
				continue
			}
			valid := strings.ToValidUTF8(raw, "\uFFFD")
			require.False(t, l.Torn)
			require.Equal(t, valid, l.Raw)
			require.Equal(t, "lat_range", l.Reason)
			require.Equal(t, now, l.Time)
			require.Equal(t, []any{int64(9), 1}, []any{l.Position, len(l.Record)})
		}
		require.Equal(t, len(lines)+1, n)

		// The notes of what was replayed, too, are read to their end.
		done := map[LetterID]bool{}
		if err := addReplayed(bytes.NewReader(text), done); err == nil {
			require.LessOrEqual(t, len(done), len(text)/32)
		}
	})
}
