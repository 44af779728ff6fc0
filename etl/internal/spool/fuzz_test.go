package spool

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// drainIntact is drain for a spool that was not corrupted after it was opened. It does not depend on the machine's speed.
func (r *harness) drainIntact(t *testing.T) (entries []string, numbers []uint64) {
	t.Helper()
	for {
		if _, more, err := r.readable(); err != nil || more != nil {
			require.NoError(t, err)
			return entries, numbers
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		e, n, err := r.Next(ctx)
		cancel()
		require.NoError(t, err)
		entries, numbers = append(entries, string(e)), append(numbers, n)
	}
}

// FuzzOpen checks that corruption of a segment or the cursor costs the entries that it hits and no others: whatever bytes
// change, and wherever the file ends, Next returns each intact entry once and in order, and nothing that was never
// written. New entries follow.
func FuzzOpen(f *testing.F) {
	const salt = 0x5eed
	entries := many(12)
	entries[5] = ""
	entries[7] = string(appendEntry(nil, []byte("looks like an entry")))
	var whole []byte
	var ends []int
	for i, e := range entries {
		from := len(whole)
		whole = appendEntry(whole, []byte(e))
		stamp(whole[from:], salt, uint64(i+1), 1_795_000_000_000)
		ends = append(ends, len(whole))
	}
	f.Add([]byte{}, uint16(0), []byte(marks{1, 1}.text()))
	f.Add([]byte{0, 0, 0xff}, uint16(1), []byte(marks{4, 13}.text()))
	f.Add([]byte{1, 0, 0x40, 0, 60, 1, 0, 61, 0xff}, uint16(30), []byte("4 deadbeef\n"))
	f.Add([]byte{0, 24, 9, 0, 32, 0xff, 0, 33, 0xff}, uint16(0), []byte(marks{1 << 63, 1 << 63}.text()))
	f.Fuzz(func(t *testing.T, corruption []byte, cut uint16, cursor []byte) {
		text := bytes.Clone(whole)
		for ; len(corruption) >= 3; corruption = corruption[3:] {
			text[(int(corruption[0])<<8|int(corruption[1]))%len(text)] = corruption[2]
		}
		text = text[:len(text)-int(cut)%len(text)]
		dir := scratch(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, segmentName(1, salt)), text, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, cursorFile), cursor, 0o600))
		first := uint64(1)
		for n := uint64(1); n <= uint64(len(entries))+1; n++ {
			for durable := range n + 20 {
				if string(cursor) == (marks{n, durable}).text() {
					first = n
				}
			}
		}
		r := mustOpen(t, dir, Options{})
		if r.cursor > uint64(len(entries))+1 {
			return // the cursor says that all entries are acknowledged
		}
		var want []string
		from := 0
		for i, end := range ends {
			if end <= len(text) && bytes.Equal(text[from:end], whole[from:end]) && uint64(i+1) >= first {
				want = append(want, entries[i])
			}
			from = end
		}
		got, numbers := r.drainIntact(t)
		require.Equal(t, want, got)
		for i := 1; i < len(numbers); i++ {
			require.Less(t, numbers[i-1], numbers[i])
		}
		r.append(t, "new")
		got, last := r.drainIntact(t)
		require.Equal(t, []string{"new"}, got)
		for _, n := range append(numbers, last...) {
			r.Ack(n)
		}
		require.Eventually(t, func() bool { return r.Bytes() == 0 }, 5*time.Second, time.Millisecond)
	})
}
