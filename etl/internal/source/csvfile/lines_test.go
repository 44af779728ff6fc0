package csvfile

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// readLines gives all lines as next gives them, each with its number.
func readLines(t *testing.T, l *lines, most int) (got []string, err error) {
	t.Helper()
	offset := l.at.offset
	for {
		b, err := l.next(most)
		if err != nil {
			return got, err
		}
		if len(b.ends) == 0 || len(b.ends) > most {
			t.Fatalf("a block of %d lines, asked for %d", len(b.ends), most)
		}
		if b.from.offset != offset {
			t.Fatalf("a block from %d, want %d", b.from.offset, offset)
		}
		offset = l.at.offset
		start := 0
		for i, end := range b.ends {
			got = append(got, fmt.Sprint(b.from.line+int64(i)+1, ":", trimEnd(b.text[start:end])))
			start = end
		}
	}
}

func TestLines(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var text strings.Builder
	var want []string
	for i := range 3000 {
		n := r.IntN(60)
		if i%500 == 499 {
			n = []int{blockBytes - 1, blockBytes, blockBytes + 1, 3 * blockBytes, telemetry.MaxRawLen, 2 * blockBytes}[i/500]
		}
		line := strings.Repeat(string(rune('a'+i%26)), n)
		text.WriteString(line + "\n")
		if n >= blockBytes { // with its end it doesn't fit the buffer
			line = line[:telemetry.MaxRawLen+1]
		}
		want = append(want, fmt.Sprint(i+1, ":", line))
	}
	whole := text.String()
	for name, in := range map[string]func(io.Reader) io.Reader{
		"plain":                     func(r io.Reader) io.Reader { return r },
		"halves":                    iotest.HalfReader,
		"error with the last bytes": iotest.DataErrReader,
	} {
		for _, most := range []int{1, 7, blockLines} {
			for _, prompt := range []bool{false, true} {
				t.Run(fmt.Sprint(name, most, prompt), func(t *testing.T) {
					l := newLines(in(strings.NewReader(whole)), place{}, prompt)
					got, err := readLines(t, l, most)
					if err != io.EOF || !slices.Equal(got, want) {
						t.Errorf("%d lines and %v, want %d", len(got), err, len(want))
					}
					if at := (place{int64(len(whole)), 3000}); l.at != at {
						t.Errorf("ended at %v, want %v", l.at, at)
					}
				})
			}
		}
	}
}

func TestLastLineWithoutEnd(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, c := range []struct {
		name string
		in   io.Reader
		want []string
		err  error
	}{
		{"whole stream", strings.NewReader("a\nb"), []string{"1:a", "2:b"}, io.EOF},
		{"broken stream", io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), []string{"1:a"}, broken},
		{"broken between lines", io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(broken)), []string{"1:a", "2:b"}, broken},
		{"broken in a long line", io.MultiReader(strings.NewReader("a\n"+strings.Repeat("b", 3*blockBytes)), iotest.ErrReader(broken)), []string{"1:a"}, broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readLines(t, newLines(c.in, place{}, false), blockLines)
			if !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}
